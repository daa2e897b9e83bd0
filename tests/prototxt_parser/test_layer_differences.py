"""Where layers differ from Caffe on purpose, and corners that no recorded case has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from prototxt_parser import Net, PrototxtError, build_net
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text


def net_from(layers: str, *, force: bool = True, **shapes: tuple[int, ...]) -> Net:
    text = f"force_backward: {str(force).lower()} {layers}"
    for name in reversed(shapes):
        text = f'layer {{ name: "{name}" type: "Input" top: "{name}" }} {text}'
    param = parse_text(text, caffe_pb2.NetParameter(), "test.prototxt")
    return build_net(param, "TRAIN", seed=3, input_shapes=shapes)


def top_and_gradient(settings: str, top: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the top of a layer over blob x, and the gradient of x for top diffs 1, 2, 3, …"""
    net = net_from(f'layer {{ name: "l" bottom: "x" top: "{top}" {settings} }}', x=tuple(x.shape))
    net.keeps_diffs = True
    value = net({"x": x})[top]
    diff = torch.arange(1.0, value.numel() + 1).reshape(value.shape)
    net.backward({top: diff})
    return value, net.diff("x")


@pytest.mark.parametrize(
    "settings",
    [
        'type: "BNLL"',
        'type: "ELU" elu_param { alpha: -0.7 }',
        'type: "Log" log_param { shift: 4 }',
        'type: "Power" power_param { power: 3 scale: 2 shift: 1 }',
        'type: "Power" power_param { scale: 2 }',
        'type: "ReLU" relu_param { negative_slope: -0.5 }',
        'type: "Exp"',
        'type: "Swish"',
    ],
)
def test_in_place_changes_neither_value_nor_gradient(settings: str) -> None:
    x = torch.tensor([[-2.0, -0.5, 0.25], [0.5, 1.5, 3.0]])
    apart, in_place = top_and_gradient(settings, "y", x), top_and_gradient(settings, "x", x)
    torch.testing.assert_close(in_place, apart, rtol=0, atol=0)


@pytest.mark.parametrize("norm_region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
def test_lrn_in_place_changes_neither_value_nor_gradient(norm_region: str) -> None:
    x = torch.randn(2, 3, 5, 7)
    layer = f'type: "LRN" lrn_param {{ alpha: 2 norm_region: {norm_region} }}'
    apart, in_place = top_and_gradient(layer, "y", x), top_and_gradient(layer, "x", x)
    torch.testing.assert_close(in_place, apart, rtol=0, atol=0)


def test_mvn_in_place_changes_neither_value_nor_gradient() -> None:
    x = torch.randn(2, 3, 5, 7)
    apart, in_place = (
        top_and_gradient('type: "MVN"', "y", x),
        top_and_gradient('type: "MVN"', "x", x),
    )
    torch.testing.assert_close(in_place, apart, rtol=0, atol=0)


def test_the_average_of_a_window_without_pixels_is_0() -> None:
    layer = 'type: "Pooling" pooling_param { pool: AVE kernel_size: 1 stride: 3 }'
    value, gradient = top_and_gradient(layer, "y", torch.full((1, 1, 3, 5), 7.0))
    assert value.tolist() == [[[[7, 7, 0], [0, 0, 0]]]]
    assert gradient.flatten().tolist() == [1, 0, 0, 2, *[0] * 11]


def test_threshold_passes_no_gradient() -> None:
    value, gradient = top_and_gradient('type: "Threshold"', "y", torch.tensor([-1.0, 0.0, 2.0]))
    assert value.tolist() == [0, 0, 1]
    assert gradient.tolist() == [0, 0, 0]


def test_eltwise_takes_coefficients_for_a_maximum_and_ignores_them() -> None:
    net = net_from(
        'layer { name: "l" type: "Eltwise" bottom: "a" bottom: "b" top: "y" '
        "eltwise_param { operation: MAX coeff: 5 coeff: -3 } }",
        a=(3,),
        b=(3,),
    )
    top = net({"a": torch.tensor([1.0, 4.0, -2.0]), "b": torch.tensor([3.0, 2.0, -1.0])})["y"]
    assert top.tolist() == [3, 4, -1]


def test_scale_leaves_the_gradient_of_a_bottom_alone_that_gets_none() -> None:
    net = net_from(
        'layer { name: "first" type: "Scale" bottom: "x" top: "h" } '
        'layer { name: "l" type: "Scale" bottom: "h" top: "y" propagate_down: false }',
        force=False,
        x=(2, 3),
    )
    net.keeps_diffs = True
    net({"x": torch.full((2, 3), 4.0)})
    net.backward({"y": torch.ones(2, 3)})
    assert not net.diff("h").any()
    assert net.flat.grad.tolist() == [0, 0, 0, 8, 8, 8]


def test_force_backward_prevails_where_propagate_down_says_false() -> None:
    net = net_from(
        'layer { name: "l" type: "Scale" bottom: "x" top: "y" propagate_down: false }', x=(2, 3)
    )
    net.keeps_diffs = True
    net({"x": torch.full((2, 3), 4.0)})
    net.backward({"y": torch.ones(2, 3)})
    assert net.diff("x").tolist() == [[1, 1, 1], [1, 1, 1]]
    assert net.flat.grad.tolist() == [8, 8, 8]


def test_softmax_loss_has_probabilities_as_second_top() -> None:
    net = net_from(
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "loss" top: "p" }',
        x=(2, 3),
        t=(2,),
    )
    x = torch.tensor([[1.0, 2.0, 4.0], [0.5, 0.0, -1.0]])
    tops = net({"x": x, "t": torch.tensor([2.0, 0.0])})
    torch.testing.assert_close(tops["p"], x.softmax(1))
    assert net.loss_weights == {"loss": 1.0}


def test_clip_in_place_passes_the_gradient_of_infinite_values() -> None:
    x = torch.tensor([-torch.inf, 0.5, torch.inf])
    value, gradient = top_and_gradient('type: "Clip" clip_param { min: -1 max: 1 }', "x", x)
    assert value.tolist() == [-1, 0.5, 1]
    assert gradient.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("power", "gradient"), [(3, [27, 0, 36]), (2, [-6, 0, 12]), (0.5, [torch.nan, torch.inf, 1.06])]
)
def test_power_has_the_limit_as_gradient_at_0(power: float, gradient: list[float]) -> None:
    x = torch.tensor([-3.0, 0.0, 2.0])
    _, found = top_and_gradient(f'type: "Power" power_param {{ power: {power} }}', "y", x)
    expected = torch.tensor(gradient, dtype=torch.float32)
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ("power: 0 shift: -2", 1.0),
        ("scale: 0 shift: -2 power: 3", -8.0),
        ("scale: 0 shift: -2 power: 0.5", torch.nan),
        ("scale: 0 power: -1", torch.inf),
    ],
)
def test_power_of_nothing_is_constant(settings: str, value: float) -> None:
    x = torch.tensor([torch.nan, 0.0, 2.0])
    top, gradient = top_and_gradient(f'type: "Power" power_param {{ {settings} }}', "y", x)
    torch.testing.assert_close(top, torch.full((3,), value), equal_nan=True)
    assert gradient.tolist() == [0, 0, 0]


@pytest.mark.parametrize("layer", ["Bias", "Scale"])
def test_a_scalar_second_bottom_needs_no_axis(layer: str) -> None:
    net = net_from(
        f'layer {{ name: "l" type: "{layer}" bottom: "x" bottom: "s" top: "y" }}', x=(3,), s=()
    )
    top = net({"x": torch.tensor([1.0, 2.0, 3.0]), "s": torch.tensor(4.0)})["y"]
    assert top.tolist() == {"Bias": [5, 6, 7], "Scale": [4, 8, 12]}[layer]


def test_infogain_with_two_tops_needs_no_loss_weights() -> None:
    net = net_from(
        'layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "t" bottom: "h" '
        'top: "loss" top: "p" }',
        x=(2, 3),
        t=(2,),
        h=(3, 3),
    )
    scores = torch.tensor([[1.0, 2.0, 4.0], [0.5, 0.0, -200.0]])
    tops = net({"x": scores, "t": torch.tensor([1.0, 2.0]), "h": torch.eye(3)})
    assert net.loss_weights == {"loss": 1.0}
    torch.testing.assert_close(tops["p"], scores.softmax(1))
    # The second item's probability is clamped to 1e-20.
    expected = (-scores[0].log_softmax(0)[1] + 46.0517) / 2
    torch.testing.assert_close(net.loss, expected)


@pytest.mark.parametrize("content", [b"\xff", b"", "legacy"], ids=["damaged", "empty", "wrong"])
def test_infogain_refuses_a_bad_matrix(
    content: bytes | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if isinstance(content, str):
        values = [1.0] * 6
        content = caffe_pb2.BlobProto(height=2, width=3, data=values).SerializeToString()
    (tmp_path / "matrix.binaryproto").write_bytes(content)
    layer = (
        'layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "t" '
        'infogain_loss_param { source: "matrix.binaryproto" } }'
    )
    with pytest.raises(PrototxtError, match="infogain matrix"):
        net_from(layer, x=(2, 3), t=(2,))


@pytest.mark.parametrize("label", [-1.0, 3.0])
@pytest.mark.parametrize("layer", ["HingeLoss", "MultinomialLogisticLoss"])
def test_a_label_must_be_a_class(layer: str, label: float) -> None:
    net = net_from(
        f'layer {{ name: "l" type: "{layer}" bottom: "x" bottom: "t" }}', x=(2, 3), t=(2,)
    )
    with pytest.raises(PrototxtError, match="is no class: the scores have classes 0 to 2"):
        net({"x": torch.zeros(2, 3), "t": torch.tensor([0.0, label])})


def test_a_net_without_parameters_computes_in_its_type() -> None:
    text = (
        'layer { name: "x" type: "Input" top: "x" } '
        'layer { name: "l" type: "AbsVal" bottom: "x" top: "y" }'
    )
    param = parse_text(text, caffe_pb2.NetParameter(), "test.prototxt")
    net = build_net(param, "TRAIN", input_shapes={"x": (2, 3)}, dtype=torch.float64)
    assert net({"x": torch.ones(2, 3)})["y"].dtype == torch.float64
