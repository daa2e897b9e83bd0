"""`torrefy upgrade` against what Caffe's three upgrade tools wrote, said and ended with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from golden_cases import GOLDEN
from prototxt_parser import build_net, load_weights, read_net
from prototxt_parser.proto import caffe_pb2
from trainer.cli import main

TEXTS = GOLDEN / "formats" / "upgrade"
MODELS = GOLDEN / "formats" / "legacy" / "v1_v0_models"
ITEMS = json.loads((TEXTS / "case.json").read_text(encoding="utf-8"))["items"]


def messages(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was logged, without Caffe's prefix."""
    return [line.split("] ", 1)[1] for line in capsys.readouterr().err.splitlines()]


@pytest.mark.golden("formats/upgrade")
@pytest.mark.parametrize("item", ITEMS, ids=[item["name"] for item in ITEMS])
def test_text_messages_and_status_are_caffes(
    item: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, new = (f"{item['name']}.{side}.prototxt" for side in ("in", "out"))
    (tmp_path / old).write_bytes((TEXTS / old).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(["upgrade", old, new]) == item["exit_code"]
    assert messages(capsys) == item["messages"]
    assert Path(new).read_text() == (TEXTS / new).read_text()


@pytest.mark.golden("formats/legacy/v1_v0_models")
@pytest.mark.parametrize("version", ["v0", "v1"])
def test_weights_are_caffes(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new.caffemodel"
    assert main(["upgrade", str(MODELS / f"{version}.caffemodel"), str(target)]) == 0
    assert messages(capsys)[-1] == f"Wrote upgraded NetParameter binary proto to {target}"
    assert target.read_bytes() == (MODELS / f"{version}_upgraded.caffemodel").read_bytes()


@pytest.mark.parametrize(
    "name", ["v1_double.caffemodel", "modern_legacy_shapes.caffemodel", "v0.caffemodel"]
)
def test_upgraded_weights_load_as_the_old_ones(name: str, tmp_path: Path) -> None:
    target = tmp_path / "new.caffemodel"
    assert main(["upgrade", str(MODELS / name), str(target)]) == 0
    nets = []
    for path in (MODELS / name, target):
        nets.append(build_net(read_net(MODELS / "modern.prototxt"), "TEST", seed=len(nets)))
        load_weights(nets[-1], path)
    assert torch.equal(nets[0].flat.data, nets[1].flat.data)


@pytest.mark.parametrize("item", ITEMS, ids=[item["name"] for item in ITEMS])
def test_a_file_may_replace_itself_and_twice_is_once(
    item: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes((TEXTS / f"{item['name']}.in.prototxt").read_bytes())
    for _ in range(2):
        assert main(["upgrade", str(path), str(path)]) == 0
        assert path.read_text() == (TEXTS / f"{item['name']}.out.prototxt").read_text()
    capsys.readouterr()
    assert [found.name for found in tmp_path.iterdir()] == ["net.prototxt"]


def test_what_has_no_current_form_is_said_and_gives_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.prototxt", tmp_path / "new.prototxt"
    old.write_text('layers { layer { name: "r" type: "relu" num_output: 3 } }')
    assert main(["upgrade", str(old), str(new)]) == 1
    said = messages(capsys)
    assert f'{old}: layer "r": unknown parameter num_output for layer type relu is ignored' in said
    assert "Encountered error(s) while upgrading prototxt; see details above." in said
    assert new.read_text() == 'layer {\n  name: "r"\n  type: "ReLU"\n}\n'


def test_unknown_fields_of_a_current_binary_net_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Field 9 of the net, 202 of its layer, 99 of a message in it; the net has an old input."""
    inside = b"\x0a\x01r" + b"\xda\x07\x03\x98\x06\x07" + b"\xd2\x0c\x02\x08\x01"
    layer = b"\xa2\x06" + bytes([len(inside)]) + inside
    data = b"\x1a\x01x" + b"\x48\x2a" + layer
    assert caffe_pb2.NetParameter.FromString(data).input == ["x"]
    (tmp_path / "old").write_bytes(data)
    assert main(["upgrade", str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    capsys.readouterr()
    written = (tmp_path / "new").read_bytes()
    assert b"\x48\x2a" in written
    assert inside in written
    assert b"\x1a\x01x" not in written


def test_unknown_fields_of_old_layers_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    v1 = caffe_pb2.V1LayerParameter(name="r", type=caffe_pb2.V1LayerParameter.RELU)
    old = (
        b"\x12"
        + bytes([len(v1.SerializeToString()) + 3])
        + v1.SerializeToString()
        + b"\xd0\x0c\x01"
    )
    net_level = b"\x48\x2a"
    (tmp_path / "old").write_bytes(old + net_level)
    assert main(["upgrade", str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    assert (
        f'{tmp_path / "old"}: layer "r": unknown fields of the old form have no current form and '
        "are left out: number 202"
    ) in messages(capsys)
    written = (tmp_path / "new").read_bytes()
    assert net_level in written
    assert b"\xd0\x0c\x01" not in written


def test_a_byte_of_an_obsolete_field_of_v0_is_no_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    payload = b"\x12\x04relu" + b"\xc8\x03\x01"  # field 57, once can_clobber
    old = b"\x12" + bytes([len(payload) + 2]) + b"\x0a" + bytes([len(payload)]) + payload
    (tmp_path / "old").write_bytes(old)
    assert main(["upgrade", str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    assert not [line for line in messages(capsys) if "left out" in line]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"layer { nam: 3 }", 'IN:1:9: unknown field "nam" in LayerParameter'),
        (b"base_lr: x", "IN:1:10: expected a number; received x"),
        (b"\x00\x01\x02", "IN: Failed to parse input binary file as NetParameter"),
        (b"\xff\xfe\x00", "IN: Failed to parse input binary file as NetParameter"),
        (b"layer { } layers { }", "IN: refusing to upgrade an inconsistent net"),
        (b"\x89HDF\r\n\x1a\n", "IN: an HDF5 file has no older form"),
    ],
)
def test_what_is_no_net_gives_status_2_and_one_line(
    content: bytes,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("IN").write_bytes(content)
    Path("OUT").write_text("as it was")
    assert main(["upgrade", "IN", "OUT"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert Path("OUT").read_text() == "as it was"


def test_a_folder_that_is_not_there_gives_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = TEXTS / "modern_untouched.in.prototxt"
    assert main(["upgrade", str(source), str(tmp_path / "no" / "out")]) == 1
    assert "cannot write" in capsys.readouterr().err
