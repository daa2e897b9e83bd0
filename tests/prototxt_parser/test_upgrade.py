"""Old nets and solvers, made current as Caffe's upgrade tools do."""

import json
import logging
from pathlib import Path

import pytest
from google.protobuf.message import Message

from golden_cases import GOLDEN
from prototxt_parser.errors import PrototxtError
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text
from prototxt_parser.upgrade import trace_upgrade, upgrade_net, upgrade_solver

TEXTS = GOLDEN / "formats" / "upgrade"
MODELS = GOLDEN / "formats" / "legacy" / "v1_v0_models"
ITEMS = json.loads((TEXTS / "case.json").read_text(encoding="utf-8"))["items"]


def read(path: Path, message: Message) -> Message:
    """Read a text without upgrading it."""
    return parse_text(path.read_text(encoding="utf-8"), message, path.name)


def net(text: str) -> caffe_pb2.NetParameter:
    """Read a net from text without upgrading it."""
    return parse_text(text, caffe_pb2.NetParameter(), "net")


def solver(text: str) -> caffe_pb2.SolverParameter:
    """Read a solver from text without upgrading it."""
    return parse_text(text, caffe_pb2.SolverParameter(), "solver")


@pytest.mark.golden("formats/upgrade")
@pytest.mark.parametrize("item", ITEMS, ids=[item["name"] for item in ITEMS])
def test_texts_become_what_caffe_makes_of_them(item: dict[str, object]) -> None:
    old, new = (TEXTS / f"{item['name']}.{side}.prototxt" for side in ("in", "out"))
    if item["kind"] == "net":
        original = read(old, caffe_pb2.NetParameter())
        kept = caffe_pb2.NetParameter.FromString(original.SerializeToString())
        assert upgrade_net(original) == read(new, caffe_pb2.NetParameter())
    else:
        original = read(old, caffe_pb2.SolverParameter())
        kept = caffe_pb2.SolverParameter.FromString(original.SerializeToString())
        assert upgrade_solver(original) == read(new, caffe_pb2.SolverParameter())
    assert original == kept


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_weights_become_what_caffe_makes_of_them(version: str) -> None:
    old, new = (
        caffe_pb2.NetParameter.FromString((MODELS / name).read_bytes())
        for name in (f"{version}.caffemodel", f"{version}_upgraded.caffemodel")
    )
    assert upgrade_net(old) == new


@pytest.mark.parametrize("name", [item["name"] for item in ITEMS if item["kind"] == "net"])
def test_upgrading_twice_is_upgrading_once(name: str) -> None:
    once = upgrade_net(read(TEXTS / f"{name}.in.prototxt", caffe_pb2.NetParameter()))
    assert upgrade_net(once) == once


def test_origins_of_layers_with_inputs_and_padding() -> None:
    original = read(TEXTS / "v0_padding_and_fillers.in.prototxt", caffe_pb2.NetParameter())
    upgrade = trace_upgrade(original, "net")
    assert upgrade.origins == (None, 1, 2, 3, 4, 5)
    for layer, origin in zip(upgrade.net.layer, upgrade.origins, strict=True):
        assert layer.name == ("input" if origin is None else original.layers[origin].layer.name)


def test_every_v1_type_has_a_name() -> None:
    types = caffe_pb2.V1LayerParameter.LayerType
    old = caffe_pb2.NetParameter(layers=[{"type": value} for value in types.values()])
    pairs = zip(old.layers, upgrade_net(old).layer, strict=True)
    names = {types.Name(v1.type): v2.type for v1, v2 in pairs}
    assert names.pop("NONE") == ""
    assert names.pop("SOFTMAX_LOSS") == "SoftmaxWithLoss"
    assert {old.replace("_", "").lower() for old in names} == {
        new.lower() for new in names.values()
    }


def test_every_v0_setting_moves() -> None:
    old = net("""
        layers { top: "d" layer {
          type: "window_data" source: "s" batchsize: 2 det_fg_threshold: .1 det_bg_threshold: .3
          det_fg_fraction: .4 det_context_pad: 5 det_crop_mode: "square"
          scale: 6 meanfile: "m" cropsize: 7 mirror: true } }
        layers { layer { type: "images" source: "t" batchsize: 8 rand_skip: 9 new_height: 10
          new_width: 11 shuffle_images: true } }
        layers { layer { type: "pool" pad: 1 kernelsize: 2 stride: 3 pool: STOCHASTIC } }
        layers { layer { type: "concat" concat_dim: 0 } }
        layers { layer { type: "lrn" local_size: 3 alpha: 4 beta: 5 k: 6 } }
        layers { layer { type: "hdf5_output" hdf5_output_param { file_name: "h" } } }
        layers { layer { type: "infogain_loss" source: "i" } }
        layers { layer { type: "hdf5_data" source: "j" batchsize: 12 } }
    """)
    new = net("""
        layer { type: "WindowData" top: "d"
          transform_param { scale: 6 mean_file: "m" crop_size: 7 mirror: true }
          window_data_param { source: "s" batch_size: 2 fg_threshold: .1 bg_threshold: .3
            fg_fraction: .4 context_pad: 5 crop_mode: "square" } }
        layer { type: "ImageData" image_data_param { source: "t" batch_size: 8 rand_skip: 9
          new_height: 10 new_width: 11 shuffle: true } }
        layer { type: "Pooling"
          pooling_param { pad: 1 kernel_size: 2 stride: 3 pool: STOCHASTIC } }
        layer { type: "Concat" concat_param { concat_dim: 0 } }
        layer { type: "LRN" lrn_param { local_size: 3 alpha: 4 beta: 5 k: 6 } }
        layer { type: "HDF5Output" hdf5_output_param { file_name: "h" } }
        layer { type: "InfogainLoss" infogain_loss_param { source: "i" } }
        layer { type: "HDF5Data" hdf5_data_param { source: "j" batch_size: 12 } }
    """)
    assert upgrade_net(old) == new


def test_v0_setting_of_another_type_is_logged_and_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    old = net('layers { layer { name: "r" type: "relu" num_output: 3 } }')
    with caplog.at_level(logging.ERROR):
        assert upgrade_net(old) == net('layer { name: "r" type: "ReLU" }')
    assert caplog.messages == [
        'net: layer "r": unknown parameter num_output for layer type relu is ignored',
        "Warning: had one or more problems upgrading V0NetParameter to NetParameter (see above); "
        "continuing anyway.",
    ]


def test_padding_passes_through_a_chain_of_consumers() -> None:
    upgraded = upgrade_net(
        net("""
            layers { layer { name: "w" type: "padding" pad: 2 } bottom: "a" top: "b" }
            layers { layer { name: "c" type: "conv" kernelsize: 5 } bottom: "b" top: "c" }
            layers { layer { name: "p" type: "pool" kernelsize: 3 } bottom: "b" top: "p" }
        """)
    )
    assert [list(layer.bottom) for layer in upgraded.layer] == [["a"], ["a"]]
    assert list(upgraded.layer[0].convolution_param.pad) == [2]
    assert upgraded.layer[1].pooling_param.pad == 2


def test_modern_layers_keep_their_transformation_fields() -> None:
    text = 'layer { type: "Data" data_param { crop_size: 3 mirror: true } }'
    assert upgrade_net(net(text)) == net(text)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_batch_norm_with_other_than_three_params_stays(count: int) -> None:
    text = 'layer { type: "BatchNorm"' + " param { lr_mult: 2 }" * count + " }"
    assert upgrade_net(net(text)) == net(text)


REFUSED_NETS = {
    "both forms": ("layers { } layer { }", "refusing to upgrade an inconsistent net"),
    "unknown V0 type": (
        'layers { layer { name: "a" type: "convv" } }',
        'layer "a": Unknown layer name: convv',
    ),
    "padding before another type": (
        'layers { layer { name: "w" type: "padding" } bottom: "a" top: "b" }'
        'layers { layer { name: "r" type: "relu" } bottom: "b" top: "b" }',
        'layer "r" (relu): reads padding layer "w"',
    ),
    "padding for two bottoms": (
        'layers { layer { name: "w" type: "padding" } bottom: "a" top: "b" }'
        'layers { layer { name: "c" type: "conv" } bottom: "b" bottom: "a" }',
        'layer "c" (conv): reads padding layer "w"',
    ),
    "padding without a bottom": (
        'layers { layer { name: "w" type: "padding" } top: "b" }',
        'padding layer "w": takes 1 bottom and 1 top; received 0 and 1',
    ),
    "too few shapes": (
        'input: "a" input: "b" input_dim: [1, 2, 3, 4, 5, 6, 7]',
        "each of 2 inputs needs an input_shape or 4 input_dim; received 0 and 7",
    ),
    "negative height": (
        'layers { layer { name: "i" type: "images" new_height: -1 } }',
        'layer "i": new_height must be >= 0; received -1',
    ),
}


@pytest.mark.parametrize("case", REFUSED_NETS)
def test_nets_that_cannot_be_upgraded(case: str) -> None:
    text, message = REFUSED_NETS[case]
    with pytest.raises(PrototxtError) as caught:
        upgrade_net(net(text), "old.prototxt")
    assert str(caught.value).startswith("old.prototxt: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SGD", "SGD"),
        ("NESTEROV", "Nesterov"),
        ("ADAGRAD", "AdaGrad"),
        ("RMSPROP", "RMSProp"),
        ("ADADELTA", "AdaDelta"),
        ("ADAM", "Adam"),
    ],
)
def test_solver_types(old: str, new: str) -> None:
    assert upgrade_solver(solver(f"solver_type: {old}")) == solver(f'type: "{new}"')


def test_solver_with_both_types_is_refused() -> None:
    with pytest.raises(PrototxtError, match="cannot be both specified in solver proto text"):
        upgrade_solver(solver('type: "SGD" solver_type: SGD'))


def test_nets_inside_a_solver_are_upgraded() -> None:
    fields = ("net_param", "train_net_param", "test_net_param", "test_net_param")
    old = solver(" ".join(f"{field} {{ layers {{ type: RELU }} }}" for field in fields))
    new = solver(" ".join(f'{field} {{ layer {{ type: "ReLU" }} }}' for field in fields))
    assert upgrade_solver(old) == new
