"""Building and running nets: wiring, states, splits, sharing, flat buffers, refusals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from prototxt_parser import Net, PrototxtError, build_net, read_net
from prototxt_parser.build import data_specs
from prototxt_parser.layers.base import Layer
from prototxt_parser.layers.registry import layer_class, layer_types, register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.state import meets_rule, net_state
from prototxt_parser.text import parse_text


def net_from(text: str, phase: str = "TRAIN", **settings: object) -> Net:
    param = parse_text(text, caffe_pb2.NetParameter(), "test.prototxt")
    return build_net(param, phase, seed=3, **settings)  # type: ignore[arg-type]


INPUT = (
    'layer { name: "in" type: "Input" top: "x" '
    "input_param { shape { dim: 2 dim: 3 dim: 5 dim: 7 } } }"
)
LINEAR = (
    'layer { name: "%s" type: "InnerProduct" bottom: "x" top: "%s" param { name: "w" %s } '
    'inner_product_param { num_output: %d weight_filler { type: "xavier" } } }'
)

REFUSED = {
    message: layer
    for layer, message in (
        block.split("\n")
        for block in (Path(__file__).parent / "refused_layers.txt")
        .read_text()
        .strip()
        .split("\n\n")[1:]
    )
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_wrong_layer_is_refused_with_place_name_and_type(message: str, tmp_path: Path) -> None:
    second = 'layer { name: "q" type: "Input" top: "q" input_param { shape { dim: 2 dim: 4 } } }'
    path = tmp_path / "wrong.prototxt"
    path.write_text(f"{INPUT}\n{second}\n  layer {{ {REFUSED[message]} }}\n")
    with pytest.raises(PrototxtError) as caught:
        build_net(read_net(path), "TRAIN")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f'{path}:3:3: layer "r" (')


def test_rules_select_layers_by_phase_level_and_stage() -> None:
    rule = caffe_pb2.NetStateRule(
        phase=caffe_pb2.TEST, min_level=2, max_level=4, stage=["a"], not_stage=["b"]
    )
    assert meets_rule(net_state("TEST", 3, ["a", "c"]), rule)
    for state in (
        net_state("TRAIN", 3, ["a"]),
        net_state("TEST", 1, ["a"]),
        net_state("TEST", 5, ["a"]),
        net_state("TEST", 3, ["c"]),
        net_state("TEST", 3, ["a", "b"]),
    ):
        assert not meets_rule(state, rule)
    assert meets_rule(net_state("TRAIN"), caffe_pb2.NetStateRule())


def test_a_bottom_that_another_stage_makes_is_explained() -> None:
    text = """
        layer { name: "a" type: "Input" top: "a" include { stage: "deploy" } }
        layer { name: "b" type: "ReLU" bottom: "BOTTOM" top: "b" }
        layer { name: "c" type: "Input" top: "c" }
    """
    words = "Unknown bottom blob 'a' .*none; a layer of another phase, level or stage makes it"
    with pytest.raises(PrototxtError, match=words):
        net_from(text.replace("BOTTOM", "a"))
    for name in ("c", "nowhere"):
        with pytest.raises(PrototxtError, match=f"Unknown bottom blob '{name}' .*here: none$"):
            net_from(text.replace("BOTTOM", name))


HUGE = {
    "learned blob": """layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 3 } } }
        layer { name: "a" type: "InnerProduct" bottom: "d" top: "a"
          inner_product_param { axis: 0 num_output: 4294967295 } }""",
    "top": """layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 3 } } }
        layer { name: "a" type: "Tile" bottom: "d" top: "a"
          tile_param { axis: 0 tiles: 2000000000 } }""",
    "constant": """layer { name: "a" type: "DummyData" top: "a"
        dummy_data_param { shape { dim: 100000 dim: 100000 } } }""",
}


@pytest.mark.parametrize("name", HUGE)
def test_a_blob_beyond_caffes_largest_is_refused(name: str) -> None:
    with pytest.raises(PrototxtError, match=r'layer "a" .*: blob size exceeds INT_MAX .* received'):
        net_from(HUGE[name])


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ("dim: 2 dim: -1", r"dims must be >= 0; received \[2, -1\]"),
        ("dim: 1 " * 33, "at most 32 axes; received 33"),
    ],
)
def test_a_shape_that_no_blob_has_is_refused(dims: str, message: str) -> None:
    text = f'layer {{ name: "a" type: "Input" top: "a" input_param {{ shape {{ {dims} }} }} }}'
    with pytest.raises(PrototxtError, match=message):
        net_from(text)


def test_include_and_exclude_together_are_refused() -> None:
    with pytest.raises(PrototxtError, match="include rules or exclude rules; not both"):
        net_from(INPUT.replace("top:", "include { } exclude { } top:"))


def test_explicit_loss_weight_moves_to_the_first_split_top() -> None:
    net = net_from(
        INPUT
        + 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" loss_weight: 3 }'
        + 'layer { name: "s" type: "Sigmoid" bottom: "y" top: "z" }'
    )
    assert net.loss_weights == {"y_r_0_split_0": 3.0}
    assert [step.param.name for step in net.steps] == ["in", "r", "y_r_0_split", "s"]
    x = torch.rand(2, 3, 5, 7)
    net({"x": x})
    torch.testing.assert_close(net.loss, 3 * x.sum())


def test_shared_blobs_are_one_segment_and_sum_gradients() -> None:
    text = INPUT + LINEAR % ("a", "ya", "lr_mult: 2", 4) + LINEAR % ("b", "yb", "", 4)
    net = net_from(text)
    names = [(s.layer, s.index, s.lr_mult) for s in net.flat.segments]
    assert names == [("a", 0, 2.0), ("a", 1, 1.0), ("b", 1, 1.0)]
    outputs = net({"x": torch.ones(2, 3, 5, 7)})
    net.backward({"ya": torch.ones(2, 4), "yb": 2 * torch.ones(2, 4)})
    assert list(outputs) == ["ya", "yb"]
    torch.testing.assert_close(net.flat.grad[: 4 * 105], torch.full((420,), 6.0))


def test_shared_blobs_must_agree() -> None:
    with pytest.raises(
        PrototxtError,
        match="Cannot share param 'w' owned by layer 'a' with layer 'b'; shape mismatch",
    ):
        net_from(INPUT + LINEAR % ("a", "ya", "", 4) + LINEAR % ("b", "yb", "", 5))
    with pytest.raises(PrototxtError, match="Shared param 'w' has mismatched lr_mult"):
        net_from(
            INPUT + LINEAR % ("a", "ya", "lr_mult: 1", 4) + LINEAR % ("b", "yb", "lr_mult: 2", 4)
        )


def test_permissive_sharing_needs_only_the_same_count() -> None:
    other = (
        'layer { name: "c" type: "InnerProduct" bottom: "x" top: "yc" '
        'param { name: "w" share_mode: PERMISSIVE } '
        "inner_product_param { num_output: 4 transpose: true } }"
    )
    net = net_from(INPUT + LINEAR % ("a", "ya", "", 4) + other)
    first, second = net.layers["a"].blobs[0], net.layers["c"].blobs[0]
    assert (first.shape, second.shape) == ((4, 105), (105, 4))
    assert first.data_ptr() == second.data_ptr()


def test_parameters_stay_views_of_the_flat_buffer_after_conversion() -> None:
    net = net_from(INPUT + LINEAR % ("a", "ya", "", 4)).double()
    weight = net.layers["a"].blobs[0]
    assert net.flat.data.dtype == torch.float64
    net.flat.data.fill_(5)
    assert bool((weight == 5).all())
    net({"x": torch.ones(2, 3, 5, 7)})
    net.backward({"ya": torch.ones(2, 4)})
    assert bool((net.flat.grad[: weight.numel()] == 2).all())


def test_share_with_aliases_the_other_nets_values() -> None:
    text = INPUT + LINEAR % ("a", "ya", "", 4)
    train, test = net_from(text), net_from(text, "TEST")
    test.share_with(train)
    train.flat.data.fill_(0.5)
    torch.testing.assert_close(test({"x": torch.ones(2, 3, 5, 7)})["ya"], torch.full((2, 4), 53.0))
    with pytest.raises(PrototxtError, match="shares the parameters of another net"):
        _ = test.flat


def test_batch_size_may_change_between_passes_and_channels_may_not() -> None:
    net = net_from(INPUT + LINEAR % ("a", "ya", "", 4))
    assert net({"x": torch.ones(6, 3, 5, 7)})["ya"].shape == (6, 4)
    with pytest.raises(
        PrototxtError, match="Input size incompatible with inner product parameters"
    ):
        net({"x": torch.ones(2, 4, 5, 7)})


def test_inputs_must_match() -> None:
    net = net_from(INPUT)
    with pytest.raises(PrototxtError, match="no input for blob x"):
        net({})
    with pytest.raises(PrototxtError, match="Unknown: y"):
        net({"x": torch.ones(1), "y": torch.ones(1)})


def test_a_label_that_is_no_class_is_refused() -> None:
    label = 'layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 2 } } }'
    net = net_from(
        INPUT
        + LINEAR % ("a", "ya", "", 4)
        + label
        + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ya" bottom: "l" }'
    )
    with pytest.raises(
        PrototxtError, match=r'layer "loss".*label 4 is no class: the scores have classes 0 to 3'
    ):
        net({"x": torch.ones(2, 3, 5, 7), "l": torch.tensor([1.0, 4.0])})
    assert net.outputs == ()


def test_same_seed_same_parameters_and_dropout() -> None:
    text = (
        INPUT
        + 'layer { name: "d" type: "Dropout" bottom: "x" top: "y" }'
        + LINEAR % ("a", "ya", "", 4)
    )
    x = torch.rand(2, 3, 5, 7)
    first, second = net_from(text), net_from(text)
    assert torch.equal(first.flat.data, second.flat.data)
    assert torch.equal(first({"x": x})["y"], second({"x": x})["y"])
    state = first.random.state_dict()
    expected = first({"x": x})["y"]
    second.random.load_state_dict(state)
    assert torch.equal(second({"x": x})["y"], expected)
    assert not torch.equal(first({"x": x})["y"], expected)


def test_data_layers_become_specs() -> None:
    specs = data_specs(read_net("cifar10_quick.prototxt"), net_state("TEST"))
    assert [(s.name, s.tops, s.phase, s.param.data_param.batch_size) for s in specs] == [
        ("cifar", ("data", "label"), 1, 100)
    ]
    assert specs[0].where.endswith("cifar10_quick.prototxt:16:1")


def test_static_shapes_are_those_of_the_tensors() -> None:
    shapes = {"data": (2, 3, 32, 32), "label": (2,)}
    net = build_net(read_net("cifar10_full.prototxt"), "TEST", input_shapes=shapes, seed=1)
    net({name: torch.zeros(shape) for name, shape in shapes.items()})
    assert {name: tuple(blob.shape) for name, blob in net.blobs.items()} == net.blob_shapes


def test_a_type_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'ReLU' is registered"):
        register_layer("ReLU")(layer_class("ReLU"))


@pytest.mark.parametrize("name", layer_types())
def test_every_layer_states_its_source_and_shape(name: str) -> None:
    text = layer_class(name).__doc__ or ""
    assert issubclass(layer_class(name), Layer)
    assert re.search("Source: caffe/(src|include)/caffe/layers/", text)
    assert "Shape: " in text
