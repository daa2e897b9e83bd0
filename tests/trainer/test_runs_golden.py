"""Whole runs of Caffe's command line, by what the log says, in order, and the last weights."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden_cases import golden_cases
from prototxt_parser import build_net, load_weights, read_net
from prototxt_parser.net import Net
from trainer.cli import main

_NUMBER = r"([-+.\deEinfa]+)"
_WEIGHTED = rf"(\S+) = {_NUMBER}(?: \(\* {_NUMBER} = {_NUMBER} loss\))?"
EVENTS = {
    "loss": rf"solver\.cpp:\d+\] Iteration (\d+)(?: \(\S+ iter/s, \S+s/\d+ iters\))?, "
    rf"loss = {_NUMBER}",
    "train_output": rf"    Train net output #(\d+): {_WEIGHTED}",
    "lr": rf"Iteration (\d+), lr = {_NUMBER}",
    "testing": r"Iteration (\d+), Testing net \(#(\d+)\)",
    "test_loss": rf"Test loss: {_NUMBER}",
    "test_output": rf"    Test net output #(\d+): {_WEIGHTED}",
    "multistep": r"MultiStep Status: Iteration (\d+), step = (\d+)",
    "clip": rf"Gradient clipping: scaling down gradients \(L2 norm {_NUMBER} > {_NUMBER}\) "
    rf"by scale factor {_NUMBER}",
    "snapshot": r"Snapshotting (to binary proto|solver state to binary proto|to HDF5|"
    r"solver state to HDF5) file (\S+)",
    "done": r"(Optimization (?:Done|stopped early)\.)",
    "batch": rf"Batch (\d+), (\S+) = {_NUMBER}",
    "mean_loss": rf"caffe\.cpp:\d+\] Loss: {_NUMBER}",
    "mean_output": rf"caffe\.cpp:\d+\] {_WEIGHTED}",
}


def events_of(log: str) -> list[list[str]]:
    """Return what the lines of a log say, each as its kind and the fields as printed."""
    found = []
    for line in log.splitlines():
        for kind, pattern in EVENTS.items():
            if match := re.search(rf"^I\d{{4}} \S+ +\d+ .*{pattern}$", line):
                found.append([kind, *(field for field in match.groups() if field is not None)])
                break
    return found


def assert_same(events: list[list[str]], expected: list[list[str]], rel: float) -> None:
    """Compare kinds, names and counts exactly, other numbers within `rel`."""
    assert [event[0] for event in events] == [event[0] for event in expected]
    for event, wanted in zip(events, expected, strict=True):
        assert len(event) == len(wanted), (event, wanted)
        for field, value in zip(event, wanted, strict=True):
            if re.fullmatch(r"-?\d*\.?\d+(e[-+]\d+)?", value) and field != value:
                assert float(field) == pytest.approx(float(value), rel=rel), (event, wanted)
            else:
                assert field == value, (event, wanted)


def run(command: str, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Run a recorded command; returns the events of its log."""
    capsys.readouterr()
    assert main(command.split()) == 0
    return events_of(capsys.readouterr().err)


@pytest.fixture(params=golden_cases("runs"))
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a case's folder without the recorded snapshots, as working directory."""
    shutil.copytree(request.param, tmp_path / "run", ignore=shutil.ignore_patterns("run_iter_*"))
    monkeypatch.chdir(tmp_path / "run")
    return Path(request.param)


def test_run_equals_caffes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = json.loads((folder / "case.json").read_text())
    rel = info["tolerance"]["printed_rel"]
    assert_same(run(info["commands"]["train"], capsys), info["events"]["train"], rel)
    if "resume" in info["commands"]:
        for path in Path().glob("*.resume.json"):
            path.unlink()  # Caffe keeps no position, so its data starts again
        assert_same(run(info["commands"]["resume"], capsys), info["events"]["resume"], rel)
    for name in info["snapshot_files_written"]:
        assert Path(name).exists()
    assert_same(run(info["commands"]["test"], capsys), info["events"]["test"], rel)
    check_weights(info, folder)


def check_weights(info: dict[str, Any], folder: Path) -> None:
    arrays = np.load(folder / "case.npz")
    net = trained_net(info["final_weights"])
    compared = 0
    for key in arrays.files:
        kind, layer, index = key.split("/")
        if kind == "final":
            value = net.layers[layer].blobs[int(index)].detach().numpy()
            largest = float(np.abs(arrays[key]).max())
            np.testing.assert_allclose(
                value,
                arrays[key],
                rtol=info["tolerance"]["param_rel"],
                atol=info["tolerance"]["param_rel"] * largest,
            )
            compared += 1
    assert compared == 4


def trained_net(weights: str) -> Net:
    shapes = {"x": (5, 6), "cls": (5,), "aux": (5, 2)}
    net = build_net(read_net("net.prototxt"), "TRAIN", input_shapes=shapes)
    load_weights(net, weights)
    return net


def test_resuming_from_caffes_own_snapshot_goes_on_as_caffe_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Path(__file__).parents[1] / "golden/runs/sgd_average_loss_resume"
    shutil.copytree(case, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    info = json.loads((case / "case.json").read_text())
    events = run(info["commands"]["resume"], capsys)
    assert_same(events, info["events"]["resume"], info["tolerance"]["printed_rel"])
    check_weights(info, case)


@pytest.mark.parametrize("name", ["train", "resume", "test"])
def test_events_of_the_recorded_log_are_the_recorded_events(name: str) -> None:
    """So that what reads our logs is known to read Caffe's."""
    for case in (Path(__file__).parents[1] / "golden/runs").iterdir():
        log = case / f"{name}.log"
        if log.exists():
            recorded = json.loads((case / "case.json").read_text())["events"][name]
            assert events_of(log.read_text()) == recorded
