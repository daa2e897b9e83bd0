"""Layer types of users: their fields in text and binary files, SSD's as the example, and refusals.

The numbers of Permute and Normalize come from the formulas in SSD's description of them.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from prototxt_parser import (
    LayerError,
    Net,
    PrototxtError,
    add_layer_fields,
    build_net,
    custom_fields,
    layer_field,
    load_weights,
    read_net,
    save_weights,
)
from prototxt_parser.build import data_specs
from prototxt_parser.layers import registry
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.proto_source import read_proto
from prototxt_parser.state import net_state
from prototxt_parser.text import parse_text, print_text

ROOT = Path(__file__).resolve().parents[2]
NET = """name: "ssd" # permute_param { order: 9 }
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } } }
layer { name: "n" type: "Normalize" bottom: "x" top: "n"
  norm_param { across_spatial: false channel_shared: false
    scale_filler { type: "constant" value: 20 } } }
layer [ { name: "p permute_param {" type: "Permute" bottom: "n" top: "p"
  permute_param: < order: 0 order: 2
    order: 3 > } ]
"""


@pytest.fixture(autouse=True)
def ssd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have SSD's layers for one test."""
    monkeypatch.setattr(registry, "_LAYERS", dict(registry._LAYERS))
    monkeypatch.setattr(custom_fields, "_FIELDS", {})
    spec = importlib.util.spec_from_file_location("ssd", ROOT / "examples" / "ssd_layers.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield


def net_of(text: str = NET) -> caffe_pb2.NetParameter:
    return parse_text(text, caffe_pb2.NetParameter(), "ssd.prototxt")


def built(settings: str, shape: tuple[int, ...]) -> Net:
    dims = " ".join(f"dim: {dim}" for dim in shape)
    return build_net(
        net_of(
            f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}'
            f'layer {{ name: "l" bottom: "x" top: "y" {settings} }}'
        ),
        "TRAIN",
        seed=3,
        dtype=torch.float64,
    )


@pytest.mark.parametrize(
    ("order", "axes"),
    [([0, 2, 3, 1], [0, 2, 3, 1]), ([3, 1], [3, 1, 0, 2]), ([], [0, 1, 2, 3])],
)
def test_permute_reorders_axes(order: list[int], axes: list[int]) -> None:
    text = " ".join(f"order: {axis}" for axis in order)
    net = built(f'type: "Permute" permute_param {{ {text} }}', (2, 3, 4, 5))
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    y = net({"x": x})["y"]
    np.testing.assert_array_equal(y, np.transpose(x.numpy(), axes))
    assert net.blob_shapes["y"] == tuple(y.shape)


@pytest.mark.parametrize("order", ["order: 1 order: 1", "order: 4"])
def test_permute_refuses_an_order_that_is_none(order: str) -> None:
    with pytest.raises(
        PrototxtError, match=r'"l" \(Permute\): order must be distinct axes below 4'
    ):
        built(f'type: "Permute" permute_param {{ {order} }}', (2, 3, 4, 5))


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_normalize_divides_by_the_norm(across: bool, shared: bool) -> None:
    fields = f"across_spatial: {across} channel_shared: {shared} eps: 0.5".lower()
    filler = 'scale_filler { type: "uniform" min: 1 max: 3 }'
    net = built(f'type: "Normalize" norm_param {{ {fields} {filler} }}', (2, 3, 4, 5))
    scale = net.layers["l"].blobs[0].detach().numpy()
    assert scale.shape == (() if shared else (3,))
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    values = x.detach().numpy()
    norm = np.sqrt((values**2).sum((1, 2, 3) if across else 1, keepdims=True) + 0.5)
    wanted = values / norm * (scale if shared else scale[:, None, None])
    np.testing.assert_allclose(net({"x": x})["y"].detach(), wanted, rtol=1e-12)
    assert gradcheck(lambda x: net({"x": x})["y"], [x])


def test_defaults_are_those_of_the_message() -> None:
    norm = layer_field(caffe_pb2.LayerParameter(), "norm_param")
    assert norm.across_spatial
    assert norm.channel_shared
    assert norm.eps == pytest.approx(1e-10)
    assert built('type: "Normalize"', (2, 3, 4)).layers["l"].blobs[0].item() == 1


def test_text_reads_back_what_it_prints() -> None:
    net = net_of()
    assert [list(layer_field(layer, "permute_param").order) for layer in net.layer] == [
        [], [], [0, 2, 3],
    ]  # fmt: skip
    printed = print_text(net)
    assert "\n  norm_param {\n    across_spatial: false\n" in printed
    assert "\n      value: 20\n" in printed
    assert net_of(printed) == net


def test_fields_have_their_numbers_in_a_binary_file() -> None:
    data = net_of().layer[2].SerializeToString()
    assert data.endswith(b"\xd2\x0c\x06\x08\x00\x08\x02\x08\x03")  # field 202, 6 bytes


def test_weights_and_definition_survive_a_caffemodel(tmp_path: Path) -> None:
    net = build_net(net_of(), "TEST", seed=1)
    with torch.no_grad():
        net.layers["n"].blobs[0].copy_(torch.tensor([2.0, 3.0, 5.0]))
    save_weights(net, tmp_path / "ssd.caffemodel")
    saved = caffe_pb2.NetParameter.FromString((tmp_path / "ssd.caffemodel").read_bytes())
    assert list(layer_field(saved.layer[2], "permute_param").order) == [0, 2, 3]
    other = build_net(net_of(), "TEST", seed=2)
    load_weights(other, tmp_path / "ssd.caffemodel")
    assert torch.equal(other.layers["n"].blobs[0], net.layers["n"].blobs[0])


def test_a_process_without_the_fields_passes_them_on(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pickle.dumps(net_of())
    with monkeypatch.context() as patch:
        patch.setattr(custom_fields, "_FIELDS", {})
        arrived = pickle.loads(packed)  # as on a worker that has not loaded the layers yet
    assert list(layer_field(arrived.layer[2], "permute_param").order) == [0, 2, 3]


WRONG = {
    "a misspelt field": (
        ("    order: 3", "    ordr: 3"),
        'ssd.prototxt:8:5: unknown field "ordr" in PermuteParameter; did you mean "order"?',
    ),
    "a wrong value": (
        ("value: 20", "value: x"),
        "ssd.prototxt:5:44: expected a number; received x",
    ),
    "a block twice": (
        ('top: "n"', 'top: "n" norm_param { }'),
        'ssd.prototxt:4:15: "norm_param" of LayerParameter may be given only once',
    ),
    "a misspelt field after a block": (
        ("} ]", "topp: 1 } ]"),
        'ssd.prototxt:8:16: unknown field "topp" in LayerParameter; did you mean "top"?',
    ),
    "a block in another message": (
        ("input_param {", "input_param { permute_param { }"),
        'unknown field "permute_param" in InputParameter',
    ),
    "a block that is none": (
        ("norm_param {", "norm_param: 1 relu_param {"),
        'ssd.prototxt:4:3: unknown field "norm_param" in LayerParameter',
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_in_added_fields_give_their_place(case: str) -> None:
    (old, new), message = WRONG[case]
    assert NET.count(old) == 1
    with pytest.raises(PrototxtError) as caught:
        net_of(NET.replace(old, new))
    assert message in str(caught.value)


def test_damaged_bytes_of_a_field_are_refused() -> None:
    layer = caffe_pb2.LayerParameter.FromString(b"\xd2\x0c\x02\x08\xff")
    with pytest.raises(LayerError, match="permute_param: the stored bytes are no such message"):
        layer_field(layer, "permute_param")


def test_a_forks_whole_schema_gives_its_new_fields() -> None:
    schema = (ROOT / "prototxt_parser" / "proto" / "caffe.proto").read_text(encoding="utf-8")
    end = "optional ClipParameter clip_param = 148;"
    assert end in schema
    add_layer_fields(
        schema.replace(end, f"{end}\n  optional ShuffleParameter shuffle_param = 203;")
        + "message ShuffleParameter { optional uint32 group = 1 [default = 2]; }"
    )
    net = net_of("layer { shuffle_param { group: 3 } permute_param { order: 1 } }")
    assert layer_field(net.layer[0], "shuffle_param").group == 3
    assert layer_field(caffe_pb2.LayerParameter(), "shuffle_param").group == 2


MESSAGE = "message A { optional bool a = 1; }"
REFUSED = {
    "": "no field for LayerParameter that Caffe lacks",
    "message A { int a = 1; }": "line 1: expected optional, repeated or required; received 'int'",
    "message A {\n optional bool a = x;": "line 2: expected a number; received 'x'",
    "message A {\n\n optional bool a = 1": "line 3: the text ends in the middle",
    "extend LayerParameter { optional uint32 a = 300; }": "a: expected an optional message",
    f"{MESSAGE} extend LayerParameter {{ repeated A a = 300; }}": "a: expected an optional message",
    "message A { optional B b = 1; } extend LayerParameter { optional A a = 300; }": "'B'",
    f"{MESSAGE} extend LayerParameter {{ optional A a = 202; }}": "202 of LayerParameter is p",
    f"{MESSAGE} extend LayerParameter {{ optional A a = 7; }}": "7 of LayerParameter is blobs",
    f"{MESSAGE} extend LayerParameter {{ optional A norm_param = 207; }}": "another field of that",
}


@pytest.mark.parametrize("text", REFUSED)
def test_definitions_that_cannot_be_added(text: str) -> None:
    with pytest.raises(PrototxtError) as caught:
        add_layer_fields(text)
    assert REFUSED[text] in str(caught.value)


def test_the_language_of_proto_files_is_read_as_protoc_does() -> None:
    text = (ROOT / "prototxt_parser" / "proto" / "caffe.proto").read_text(encoding="utf-8")
    ours = read_proto(text)
    theirs = type(ours)()
    caffe_pb2.DESCRIPTOR.CopyToProto(theirs)
    lines = [
        sorted(
            (m.name, f.number, f.name, f.label, f.options.packed, f.type_name.split(".")[-1])
            for m in file.message_type
            for f in m.field
        )
        for file in (ours, theirs)
    ]
    assert lines[0] == lines[1]
    enums = [
        {
            e.name: [(v.name, v.number) for v in e.value]
            for m in file.message_type
            for e in m.enum_type
        }
        for file in (ours, theirs)
    ]
    assert enums[0] == enums[1]


UNKNOWN = """layer { name: "d" type: "Input" top: "x" }
layer { name: "a" type: "Relu" bottom: "x" top: "y" }
  layer { name: "b" type: "DetectionOutput" bottom: "y" top: "z" }
layer { name: "c" type: "Foo" bottom: "z" top: "w" include { phase: TRAIN } }
layer { name: "e" type: "Bar" bottom: "z" top: "w" include { phase: TEST } }
"""


def test_all_unknown_types_of_a_phase_are_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(UNKNOWN)
    wanted = [
        f'{path}:2:1: layer "a" (Relu): Unknown layer type: Relu; did you mean "ReLU" or "PReLU"?',
        f'{path}:3:3: layer "b" (DetectionOutput): Unknown layer type: DetectionOutput',
        f'{path}:4:1: layer "c" (Foo): Unknown layer type: Foo',
    ]
    for use in (
        lambda: build_net(read_net(path), "TRAIN"),
        lambda: data_specs(read_net(path), net_state("TRAIN")),
    ):
        with pytest.raises(PrototxtError) as caught:
            use()
        *lines, remedy = str(caught.value).split("\n")
        assert lines == wanted
        assert "--layer-module" in remedy


FIELDS_OF_UNKNOWN_TYPES = """layer { name: "d" type: "Input" top: "x" }
layer { name: "a" type: "Relu" bottom: "x" top: "y"
  relu6_param { limit: 6 names: ["p", "q"] } }
layer { name: "b" type: "PriorBox" bottom: "y" top: "z" prior_box_param < min_size: 3.5 > }
"""


def test_unknown_types_come_before_the_fields_that_they_bring(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(FIELDS_OF_UNKNOWN_TYPES)
    with pytest.raises(PrototxtError) as caught:
        read_net(path)
    assert str(caught.value).split("\n")[:2] == [
        f'{path}:2:1: layer "a" (Relu): Unknown layer type: Relu; did you mean "ReLU" or "PReLU"?',
        f'{path}:4:1: layer "b" (PriorBox): Unknown layer type: PriorBox',
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (FIELDS_OF_UNKNOWN_TYPES.replace("Relu", "ReLU").replace("PriorBox", "Split"), "3:3"),
        (FIELDS_OF_UNKNOWN_TYPES + "layers { type: RELU }", "3:3"),
        (FIELDS_OF_UNKNOWN_TYPES + "layer { top: }", "3:3"),
    ],
    ids=["known types", "old layers", "another mistake"],
)
def test_unknown_fields_are_errors_of_their_own(text: str, place: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    with pytest.raises(PrototxtError, match=rf'{path}:{place}: unknown field "relu6_param"'):
        read_net(path)


def test_a_type_cannot_be_registered_twice() -> None:
    with pytest.raises(ValueError, match="layer type 'Permute' is registered"):
        registry.register_layer("Permute")(registry.layer_class("ReLU"))
