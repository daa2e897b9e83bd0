"""Where PyTorch's defaults, or the obvious way, would give other numbers than Caffe."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from prototxt_parser import Net, PrototxtError, build_net
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text


def net_from(layers: str, phase: str = "TRAIN", **shapes: tuple[int, ...]) -> Net:
    inputs = "".join(f'layer {{ name: "{n}" type: "Input" top: "{n}" }} ' for n in shapes)
    param = parse_text("force_backward: true " + inputs + layers, caffe_pb2.NetParameter(), "net")
    net = build_net(param, phase, seed=3, input_shapes=shapes)
    net.keeps_diffs = True
    return net


def statistics(net: Net) -> list[Tensor]:
    return [blob.detach().clone() for blob in net.layers["n"].blobs]


NORM = 'layer { name: "n" type: "BatchNorm" bottom: "x" top: "y" %s } '


def test_batch_norm_learns_statistics_by_its_phase_alone() -> None:
    x = torch.rand(2, 3, 5, 7)
    for is_training in (True, False):
        trained = net_from(NORM % "", x=(2, 3, 5, 7)).train(is_training)
        tested = net_from(NORM % "", "TEST", x=(2, 3, 5, 7)).train(is_training)
        y = trained({"x": x})["y"]
        assert y.mean(dim=(0, 2, 3)).abs().max() < 1e-5
        assert statistics(trained)[2].item() == 1
        tested({"x": x})
        assert [float(blob.abs().sum()) for blob in statistics(tested)] == [0, 0, 0]


def test_batch_norm_keeps_sums_of_means_and_unbiased_variances() -> None:
    settings = "batch_norm_param { moving_average_fraction: 0.75 }"
    net = net_from(NORM % settings, x=(2, 1, 3))
    net({"x": torch.tensor([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 9.0]]])})
    mean, variance, factor = (blob.item() for blob in statistics(net))
    assert (mean, variance, factor) == pytest.approx((4, 8, 1))
    net({"x": torch.zeros(2, 1, 3)})
    assert [blob.item() for blob in statistics(net)] == pytest.approx([3, 6, 1.75])


def test_epsilon_joins_the_variance_in_batch_norm_and_the_deviation_in_mvn() -> None:
    x = torch.tensor([-1.0, 1.0] * 3).reshape(1, 1, 2, 3)
    y = net_from(NORM % "batch_norm_param { eps: 8 }", x=(1, 1, 2, 3))({"x": x})["y"]
    torch.testing.assert_close(y, x / 3)
    mvn = 'layer { name: "n" type: "MVN" bottom: "x" top: "y" mvn_param { eps: 8 } }'
    torch.testing.assert_close(net_from(mvn, x=(1, 1, 2, 3))({"x": x})["y"], x / 9)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_batch_norm_statistics_are_kept_whatever_params_it_has(count: int) -> None:
    net = net_from(NORM % ("param { lr_mult: 0 } " * count), x=(2, 3, 5, 7))
    assert [segment.lr_mult for segment in net.flat.segments] == [0, 0, 0]
    net({"x": torch.rand(2, 3, 5, 7)})
    net.backward({"y": torch.ones(2, 3, 5, 7)})
    assert statistics(net)[2].item() == 1
    assert not net.flat.grad.any()


def test_batch_norm_takes_three_params_at_most() -> None:
    with pytest.raises(PrototxtError, match="Too many params"):
        net_from(NORM % ("param { lr_mult: 0 } " * 4), x=(2, 3, 5, 7))


DROPOUT = (
    'layer { name: "d" type: "Dropout" bottom: "x" top: "y" dropout_param { dropout_ratio: 0.8 } }'
)


def test_dropout_drops_by_its_phase_alone() -> None:
    x = torch.ones(50, 401)
    for is_training in (True, False):
        y = net_from(DROPOUT, x=(50, 401)).train(is_training)({"x": x})["y"]
        torch.testing.assert_close(y.unique(), torch.tensor([0.0, 5.0]))
        assert y.mean().item() == pytest.approx(1, abs=0.1)
        assert torch.equal(
            net_from(DROPOUT, "TEST", x=(50, 401)).train(is_training)({"x": x})["y"], x
        )


def test_softmax_loss_saturates_and_its_gradient_does_not() -> None:
    net = net_from('layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" }',
                   x=(1, 3), t=(1,))  # fmt: skip
    net({"x": torch.tensor([[0.0, 500.0, 1.0]]), "t": torch.zeros(1)})
    net.backward()
    assert net.loss.item() == pytest.approx(87.33654, abs=1e-5)
    torch.testing.assert_close(net.diff("x"), torch.tensor([[-1.0, 1.0, 0.0]]))


LABELLED = {
    "SoftmaxWithLoss": -math.log(0.5),
    "Accuracy": 1.0,
    "HingeLoss": 0.25,
    "MultinomialLogisticLoss": -math.log(0.75),
}


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 1, 1, 1)])
@pytest.mark.parametrize("layer", LABELLED)
def test_labels_have_any_shape_and_their_integer_part_counts(
    layer: str, shape: tuple[int, ...]
) -> None:
    net = net_from(
        f'layer {{ name: "l" type: "{layer}" bottom: "x" bottom: "t" top: "y" }}', x=(2, 3), t=shape
    )
    scores = {
        "SoftmaxWithLoss": torch.tensor([[math.log(2), 0, 0], [0, math.log(2), 0]]),
        "Accuracy": torch.tensor([[9.0, 1, 2], [1, 9, 2]]),
        "HingeLoss": torch.tensor([[0.75, -1, -1], [-1, 0.75, -1]]),
        "MultinomialLogisticLoss": torch.tensor([[0.75, 0.125, 0.125], [0.125, 0.75, 0.125]]),
    }[layer]
    top = net({"x": scores, "t": torch.tensor([-0.9, 1.9]).reshape(shape)})["y"]
    assert top.item() == pytest.approx(LABELLED[layer], rel=1e-5)


def test_contrastive_gradient_divides_by_a_little_more_than_the_distance() -> None:
    net = net_from(
        'layer { name: "l" type: "ContrastiveLoss" bottom: "a" bottom: "b" bottom: "s" }',
        a=(2, 3),
        b=(2, 3),
        s=(2,),
    )
    a = torch.tensor([[1e-4, 0.0, 0.0], [0.0, 0.0, 0.0]])
    net({"a": a, "b": torch.zeros(2, 3), "s": torch.zeros(2)})
    net.backward()
    # -(margin - d) / (d + 1e-4) · (a - b) / N; at distance 0 there is no direction to go in.
    wanted = torch.tensor([[-(1 - 1e-4) / 2e-4 * 1e-4 / 2, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(net.diff("a"), wanted)
    torch.testing.assert_close(net.diff("b"), -wanted)


@pytest.mark.parametrize("legacy", ["true", "false"])
def test_a_pair_just_at_the_margin_gets_no_gradient(legacy: str) -> None:
    net = net_from(
        'layer { name: "l" type: "ContrastiveLoss" bottom: "a" bottom: "b" bottom: "s" '
        f"contrastive_loss_param {{ margin: 1 legacy_version: {legacy} }} }}",
        a=(2, 3),
        b=(2, 3),
        s=(2,),
    )
    # The distances are 1, just the margin, and 1/2.
    a = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    net({"a": a, "b": torch.zeros(2, 3), "s": torch.zeros(2)})
    net.backward()
    assert not net.diff("a")[0].any()
    assert net.diff("a")[1, 1] < 0


TWO_LOSSES = (
    'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "p" inner_product_param '
    '{ num_output: 4 weight_filler { type: "xavier" } } } '
    'layer { name: "l" type: "EuclideanLoss" bottom: "p" bottom: "q" top: "off" %s } '
)


def test_a_loss_of_weight_0_is_computed_and_trains_nothing() -> None:
    net = net_from(TWO_LOSSES % "loss_weight: 0", x=(2, 3), q=(2, 4))
    tops = net({"x": torch.ones(2, 3), "q": torch.full((2, 4), 5.0)})
    net.backward()
    assert tops["off"].item() > 1
    assert net.loss.item() == 0
    assert not net.flat.grad.any()
    net = net_from(TWO_LOSSES % "loss_weight: 0.5", x=(2, 3), q=(2, 4))
    tops = net({"x": torch.ones(2, 3), "q": torch.full((2, 4), 5.0)})
    net.backward()
    torch.testing.assert_close(net.loss, tops["off"] / 2)
    assert net.flat.grad.any()


WEIGHTS = 'weight_filler { type: "xavier" variance_norm: %s }'
FANS = {
    ("Convolution", "FAN_IN"): 3 * 25,
    ("Convolution", "FAN_OUT"): 64 * 25,
    ("Deconvolution", "FAN_IN"): 32 * 25,
    ("Deconvolution", "FAN_OUT"): 6 * 25,
    ("InnerProduct", "FAN_IN"): 64,
    ("InnerProduct", "FAN_OUT"): 210,
}


@pytest.mark.parametrize(("layer", "norm"), FANS)
def test_fans_are_those_of_the_stored_blob(layer: str, norm: str) -> None:
    """Of a grouped convolution, a deconvolution and a transposed linear map of 6 x 5 x 7."""
    filler = WEIGHTS % norm
    settings = (
        f"inner_product_param {{ num_output: 64 transpose: true {filler} }}"
        if layer == "InnerProduct"
        else f"convolution_param {{ num_output: 64 group: 2 kernel_size: 5 {filler} }}"
    )
    net = net_from(
        f'layer {{ name: "l" type: "{layer}" bottom: "x" top: "y" {settings} }}', x=(2, 6, 5, 7)
    )
    bound = net.layers["l"].blobs[0].abs().max().item()
    assert bound == pytest.approx(math.sqrt(3 / FANS[layer, norm]), rel=0.01)


@pytest.mark.parametrize("layer", ["Convolution", "InnerProduct", "Embed"])
def test_weights_without_a_filler_are_zero_and_so_are_biases(layer: str) -> None:
    settings = {
        "Convolution": "convolution_param { num_output: 4 kernel_size: 2 }",
        "InnerProduct": "inner_product_param { num_output: 4 }",
        "Embed": "embed_param { num_output: 4 input_dim: 3 }",
    }[layer]
    net = net_from(
        f'layer {{ name: "l" type: "{layer}" bottom: "x" top: "y" {settings} }}', x=(2, 3, 5, 7)
    )
    assert len(net.layers["l"].blobs) == 2
    assert not net.flat.data.any()


def test_dummy_data_and_input_take_no_notice_of_a_transform() -> None:
    transform = "transform_param { scale: 0.5 mean_value: 3 crop_size: 2 mirror: true }"
    net = net_from(
        f'layer {{ name: "in" type: "Input" top: "a" {transform} '
        "input_param { shape { dim: 2 dim: 3 dim: 5 dim: 7 } } } "
        f'layer {{ name: "dummy" type: "DummyData" top: "b" {transform} dummy_data_param '
        "{ shape { dim: 3 dim: 2 dim: 7 dim: 5 } data_filler { value: 9 } } }"
    )
    a = torch.rand(2, 3, 5, 7)
    tops = net({"a": a})
    assert torch.equal(tops["a"], a)
    assert torch.equal(tops["b"], torch.full((3, 2, 7, 5), 9.0))


def test_outputs_come_in_byte_order_of_their_names() -> None:
    copy = 'layer { name: "%s" type: "Power" bottom: "x" top: "%s" } '
    names = ("loss2/top", "accuracy", "Zebra", "loss", "loss10")
    net = net_from("".join(copy % (name, name) for name in names), x=(2, 3))
    tops = net({"x": torch.ones(2, 3)})
    assert list(tops) == ["Zebra", "accuracy", "loss", "loss10", "loss2/top"]


def test_a_split_is_named_after_the_last_layer_that_wrote_the_blob() -> None:
    net = net_from(
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "p" '
        "inner_product_param { num_output: 4 } } "
        'layer { name: "act" type: "ReLU" bottom: "p" top: "p" } '
        'layer { name: "left" type: "Power" bottom: "p" top: "a" } '
        'layer { name: "right" type: "Power" bottom: "p" top: "b" } ',
        x=(2, 3),
    )
    assert [step.param.name for step in net.steps] == [
        "x", "ip", "act", "p_act_0_split", "left", "right",
    ]  # fmt: skip
    assert [name for name in net.blob_shapes if "split" in name] == [
        "p_act_0_split_0",
        "p_act_0_split_1",
    ]
