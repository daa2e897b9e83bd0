"""`torrefy summary`: published counts, memory, shapes from the definition, the data or the user."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_parser import build_net, read_net
from prototxt_parser.layers import registry
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text
from trainer.cli import main
from trainer.data.database import write_database
from trainer.data.entries import datum_entries
from trainer.data.mean_file import write_mean
from trainer.summary import NetSummary, summarize


def summary_of(text: str) -> NetSummary:
    return summarize(build_net(parse_text(text, caffe_pb2.NetParameter(), "net"), "TEST"))


def run_json(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert main(["summary", *args, "--json"]) == 0
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    return record


@pytest.mark.parametrize(
    ("net", "parameters", "products"),
    [
        # 20·24²·5² + 50·8²·20·5² + 500·800 + 10·500
        ("lenet_deploy", 431_080, 2_293_000),
        # 96·55²·363 + 256·27²·1200 + 13²·(384·2304 + 384·1728 + 256·1728) + the three fc layers
        ("caffenet_deploy", 60_965_224, 724_406_816),
        ("googlenet_deploy", 6_998_552, None),
        # 32·32²·75 + 32·16²·800 + 64·8²·800 + 64·1024 + 10·64
        ("cifar10_quick_deploy", 145_578, 12_354_176),
    ],
)
def test_published_counts(
    capsys: pytest.CaptureFixture[str], net: str, parameters: int, products: int | None
) -> None:
    record = run_json(capsys, f"{net}.prototxt")
    assert record["parameters"] == parameters
    assert record["parameter_bytes"] == 4 * parameters
    if products is not None:
        assert record["multiply_adds"] == products * record["batch"]


def test_batch_norm_statistics_are_told_apart() -> None:
    net = build_net(
        read_net("cifar10_full_sigmoid_bn.prototxt"),
        "TEST",
        input_shapes={"data": (7, 3, 32, 32), "label": (7,)},
    )
    summary = summarize(net)
    assert (summary.parameters, summary.statistics) == (
        89_709,
        32 * 2 + 1 + 32 * 2 + 1 + 64 * 2 + 1,
    )


def test_shared_parameters_are_counted_once() -> None:
    layers = "".join(
        f'layer {{ name: "ip{i}" type: "InnerProduct" bottom: "data" top: "ip{i}" '
        'param { name: "w" } param { name: "b" } inner_product_param { num_output: 5 } } '
        for i in range(2)
    )
    data = 'layer { name: "d" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }'
    summary = summary_of(data + layers)
    counts = {layer.name: layer.parameters for layer in summary.layers}
    assert (counts["ip0"], counts["ip1"], summary.parameters) == (20, 0, 20)
    assert summary.cost.multiply_adds == 2 * 2 * 3 * 5


def test_the_batch_is_that_of_the_first_source() -> None:
    summary = summary_of(
        'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 4 dim: 3 } } '
        "}"
    )
    assert (summary.batch, summary.layers[0].tops) == (4, (("d", (4, 3)),))


def test_blobs_in_place_and_views_take_no_memory() -> None:
    summary = summary_of(
        'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 2 dim: 3 dim: 5 } } }'
        'layer { name: "r" type: "ReLU" bottom: "d" top: "d" }'
        'layer { name: "f" type: "Flatten" bottom: "d" top: "f" }'
        'layer { name: "s" type: "Sigmoid" bottom: "f" top: "s" }'
        'layer { name: "l" type: "EuclideanLoss" bottom: "s" bottom: "f" }'
    )
    sizes = {layer.name: layer.activation_bytes for layer in summary.layers}
    assert sizes == {"d": 120, "r": 0, "f": 0, "f_f_0_split": 0, "s": 120, "l": 4}
    assert summary.activation_bytes == 244
    assert summary.layers[-1].tops == (("(automatic)", ()),)


def data_net(folder: Path, settings: str, kind: str = "Data", tops: str = 'top: "data"') -> str:
    path = folder / "net.prototxt"
    layer = f'layer {{ name: "in" type: "{kind}" {tops} {settings} }}'
    path.write_text(f'{layer} layer {{ name: "q" type: "Silence" bottom: "data" }}')
    return str(path)


LABELLED = 'top: "data" top: "label"'
DATABASE = 'data_param { source: "gone_lmdb" batch_size: 4 backend: LMDB }'


@pytest.mark.parametrize(
    ("kind", "settings", "shape"),
    [
        (
            "Data",
            DATABASE
            + " transform_param { crop_size: 9 mean_value: 1 mean_value: 2 mean_value: 3 }",
            [4, 3, 9, 9],
        ),
        ("Data", DATABASE + " transform_param { crop_size: 9 force_gray: true }", [4, 1, 9, 9]),
        ("Data", DATABASE + " transform_param { crop_size: 9 force_color: true }", [4, 3, 9, 9]),
        (
            "ImageData",
            'image_data_param { source: "gone.txt" batch_size: 4 new_height: 6 new_width: 8 }',
            [4, 3, 6, 8],
        ),
        (
            "ImageData",
            'image_data_param { source: "gone.txt" batch_size: 4 is_color: false } '
            "transform_param { crop_size: 9 }",
            [4, 1, 9, 9],
        ),
        (
            "WindowData",
            'window_data_param { source: "gone.txt" batch_size: 4 } '
            "transform_param { crop_size: 9 }",
            [4, 3, 9, 9],
        ),
        (
            "MemoryData",
            "memory_data_param { batch_size: 4 channels: 2 height: 6 width: 8 }",
            [4, 2, 6, 8],
        ),
    ],
)
def test_shapes_from_the_definition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, settings: str, shape: list[int]
) -> None:
    net = data_net(tmp_path, settings, kind, LABELLED)
    assert run_json(capsys, net)["layers"][0]["tops"] == {"data": shape, "label": [4]}


def test_shapes_from_a_mean_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mean(tmp_path / "mean.binaryproto", np.zeros((3, 5, 7), np.float32))
    mean = f'mean_file: "{tmp_path / "mean.binaryproto"}"'
    for crop, want in (("", [4, 3, 5, 7]), ("crop_size: 2", [4, 3, 2, 2])):
        net = data_net(tmp_path, f"{DATABASE} transform_param {{ {mean} {crop} }}")
        assert run_json(capsys, net)["layers"][0]["tops"] == {"data": want}


def test_shapes_from_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = datum_entries([(1, bytes(2 * 3 * 5))] * 2, (2, 3, 5), key_digits=5)
    write_database(tmp_path / "gone_lmdb", entries)
    net = data_net(tmp_path, DATABASE, tops=LABELLED)
    record = run_json(capsys, net, "--data", str(tmp_path))
    assert record["layers"][0]["tops"] == {"data": [4, 2, 3, 5], "label": [4]}


def test_given_shapes_come_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crop = DATABASE + " transform_param { crop_size: 9 }"
    net = data_net(tmp_path, crop, tops=LABELLED)
    record = run_json(capsys, net, "-input_shape=data:6,3,5,7")
    assert record["layers"][0]["tops"] == {"data": [6, 3, 5, 7], "label": [6]}
    deploy = run_json(capsys, "lenet_deploy.prototxt", "--input-shape", "data:3,1,28,28")
    assert deploy["batch"] == 3 and deploy["multiply_adds"] == 3 * 2_293_000


@pytest.mark.parametrize(
    ("transform", "flags"),
    [
        ("", "--input-shape data:4,3,256,256"),
        ("crop_size: 9", "--input-shape data:4,3,9,9"),
        ("force_gray: true", "--input-shape data:4,1,256,256"),
    ],
)
def test_an_unknown_shape_says_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], transform: str, flags: str
) -> None:
    net = data_net(tmp_path, f"{DATABASE} transform_param {{ {transform} }}")
    assert main(["summary", net]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f'error: {net}:1:1: layer "in" (Data): gone_lmdb does not exist')
    assert f"say it with {flags}, or with the numbers that your data have" in complaint
    assert main(["summary", net, *flags.split()]) == 0


def test_hdf5_data_needs_a_shape_for_every_top(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = 'hdf5_data_param { source: "gone.txt" batch_size: 4 }'
    net = data_net(tmp_path, settings, "HDF5Data", LABELLED)
    assert main(["summary", net]) == 2
    flags = "--input-shape data:4,10 --input-shape label:4,10"
    assert f"say it with {flags}, or" in capsys.readouterr().err
    assert main(["summary", net, *flags.split()]) == 0


def test_shapes_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "lenet_deploy.prototxt", "--input-shape", "dato:1,1,28,28"]) == 2
    assert "--input-shape dato: no layer is fed a blob of that name; those that are: data" in (
        capsys.readouterr().err
    )
    for text in ("data", "data:", "data:1,0", "data:1x3"):
        with pytest.raises(SystemExit) as stop:
            main(["summary", "lenet_deploy.prototxt", "--input-shape", text])
        assert stop.value.code == 2
        assert f"expected BLOB:N,C,H,W, such as data:1,3,224,224; received {text}" in (
            capsys.readouterr().err
        )


def test_phase_level_and_stage_select_layers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
        'layer { name: "a" type: "ReLU" bottom: "x" top: "a" include { phase: TRAIN } }'
        'layer { name: "b" type: "ReLU" bottom: "x" top: "b" include { stage: "s" min_level: 2 } }'
    )
    for flags, names in (
        (["-phase=TRAIN"], ["in", "a"]),
        (["-stage=t,s", "-level=2"], ["in", "b"]),
        (["-stage=s", "-level=1"], ["in"]),
    ):
        record = run_json(capsys, str(path), *flags)
        assert [layer["name"] for layer in record["layers"]] == names


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'name: "small" '
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 5 dim: 6 } } } '
        'layer { name: "halves" type: "Slice" bottom: "x" top: "a" top: "b" } '
        'layer { name: "ip" type: "InnerProduct" bottom: "a" top: "ip" '
        "inner_product_param { num_output: 1000 } } "
        'layer { name: "norm" type: "BatchNorm" bottom: "b" top: "b" }'
    )
    assert main(["summary", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "small, TEST, 4 layers",
        "layer   type          top        parameters  multiply-adds   FLOPs  activations",
        "in      Input         x 5x6               0              0       0      0.00 MB",
        "halves  Slice         a 5x3               0              0       0      0.00 MB",
        "                      b 5x3",
        "ip      InnerProduct  ip 5x1000       4,000         15,000  35,000      0.02 MB",
        "norm    BatchNorm     b 5x3               7              0      30      0.00 MB",
        "parameters     4,007, 0.02 MB; 7 are statistics",
        "multiply-adds  15,000, 3,000 per item of a batch of 5",
        "FLOPs          35,030, 7,006 per item of a batch of 5",
        "activations    0.02 MB",
    ]


def test_types_of_others_are_listed_as_not_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_LAYERS", dict(registry._LAYERS))
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = tmp_path / "summary_test_layer.py"
    module.write_text(
        "from prototxt_parser.layers.activations import Elementwise\n"
        "from prototxt_parser.layers.registry import register_layer\n"
        "@register_layer('SummaryTestDouble')\n"
        "class Double(Elementwise):\n"
        "    def forward(self, *bottoms):\n"
        "        return 2 * bottoms[0]\n"
    )
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 5 dim: 6 } } } '
        'layer { name: "d" type: "SummaryTestDouble" bottom: "x" top: "y" }'
    )
    assert main(["summary", str(path), "--layer-module", str(module)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split() == ["d", "SummaryTestDouble", "y", "5x6", "0", "?", "?", "0.00", "MB"]
    assert lines[-1] == "not counted    SummaryTestDouble"
