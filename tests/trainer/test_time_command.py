"""`torrefy time`: its lines, and that running layer by layer is running the net."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from image_databases import images, make_image_lmdb
from torch import Tensor

from golden_cases import GOLDEN
from prototxt_parser import build_net
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text
from solvers.feed import NoFeed
from trainer.cli import main
from trainer.timing import NetTimer

NET = """name: "small"
layer {
  name: "images" type: "Data" top: "data" top: "label"
  data_param { source: "images_lmdb" batch_size: 6 backend: LMDB }
  include { phase: TRAIN }
}
layer { name: "images" type: "Input" top: "data" top: "label" include { phase: TEST }
  input_param { shape { dim: 2 dim: 3 dim: 5 dim: 7 } shape { dim: 2 } } }
layer { name: "score" type: "InnerProduct" bottom: "data" top: "score"
  inner_product_param { num_output: 11 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "score" top: "score" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_image_lmdb(tmp_path / "images_lmdb", images(11))
    (tmp_path / "small.prototxt").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(log: str) -> list[str]:
    """Return what caffe.cpp says, numbers as N and one layer for all, without single iterations."""
    lines = re.findall(r"^I\d{4} \S+ +\d+ caffe\.cpp:\d+\] (.*)$", log, re.M)
    lines = [line for line in lines if not line.startswith("Iteration: ")]
    lines = [re.sub(r"^ *\w+\t", "LAYER\t", line) for line in lines]
    return list(dict.fromkeys(re.sub(r"\d[-+.\de]*", "N", line) for line in lines))


def test_lines_are_those_of_a_recorded_log(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["time", "-model", "small.prototxt", "-iterations=3"]) == 0
    log = capsys.readouterr().err
    assert said(log) == said((GOLDEN / "logs/time.log").read_text())
    iterations = re.findall(r"Iteration: (\d+) forward-backward time: (\S+) ms\.", log)
    assert [number for number, _ in iterations] == ["1", "2", "3"]
    names = re.findall(r"\] ( *\w+)\tforward: ", log)
    assert names == ["    images", "     score", "      relu", "      loss"]


def test_the_whole_is_the_sum_of_its_parts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["time", "-model", "small.prototxt", "-iterations=3"]) == 0
    log = capsys.readouterr().err

    def sum_of(pattern: str) -> float:
        found = re.findall(pattern + r" (\S+) ms\.", log)
        assert found
        return sum(map(float, found))

    forward, backward = sum_of(r"\tforward:"), sum_of(r"\tbackward:")
    assert forward > 0
    assert backward > 0
    assert sum_of("Average Forward pass:") == pytest.approx(forward, rel=1e-4)
    assert sum_of("Average Backward pass:") == pytest.approx(backward, rel=1e-4)
    assert sum_of("Average Forward-Backward:") == pytest.approx(forward + backward, rel=1e-4)
    assert sum_of("Total Time:") == pytest.approx(3 * (forward + backward), rel=1e-4)
    assert sum_of(r"forward-backward time:") == pytest.approx(3 * (forward + backward), rel=1e-4)


def test_phase_chooses_the_net(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "images_lmdb/data.mdb").unlink()  # the TEST net has an Input layer instead
    assert main(["time", "-model", "small.prototxt", "-phase=TEST", "-iterations=1"]) == 0
    assert "Initial loss: 2.3979\n" in capsys.readouterr().err  # log 11: all scores are 0


WRONG = {
    "no model": ([], "Need a model definition to time."),
    "phase": (["-model=small.prototxt", "-phase=LEARN"], 'phase must be "TRAIN" or "TEST"'),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_ends_in_one_message_and_status_2(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, message = WRONG[name]
    assert main(["time", *argv]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


BRANCHED = """
layer { name: "images" type: "Data" top: "x" top: "t" }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" }
    bias_filler { type: "gaussian" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" relu_param { negative_slope: 0.1 } }
layer { name: "a" type: "InnerProduct" bottom: "conv" top: "a"
  inner_product_param { num_output: 7 weight_filler { type: "gaussian" } } }
layer { name: "b" type: "InnerProduct" bottom: "conv" top: "b" PROPAGATE
  inner_product_param { num_output: 7 weight_filler { type: "gaussian" } } }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
layer { name: "size" type: "Reduction" bottom: "a" top: "size" loss_weight: 0.25
  reduction_param { operation: SUMSQ } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "sum" bottom: "t" top: "loss" loss_weight: 3 }
layer { name: "unused" type: "Softmax" bottom: "b" top: "unused" }
"""


class OneBatch(NoFeed):
    """Gives the same images and labels for ever."""

    shapes: ClassVar = {"x": (3, 2, 6, 5), "t": (3,)}

    def __init__(self) -> None:
        self._batch = {"x": torch.randn(3, 2, 6, 5), "t": torch.tensor([4.0, 0.0, 6.0])}

    def next(self) -> dict[str, Tensor]:
        return self._batch


@pytest.mark.parametrize("propagate", ["", "propagate_down: false"])
@pytest.mark.parametrize("force", ["", "force_backward: true"])
def test_layer_by_layer_gives_the_gradients_of_the_whole_net(propagate: str, force: str) -> None:
    text = force + BRANCHED.replace("PROPAGATE", propagate)
    definition, feed = parse_text(text, caffe_pb2.NetParameter(), "net"), OneBatch()
    net = build_net(definition, "TRAIN", input_shapes=feed.shapes, seed=3)
    net(feed.next())
    net.flat.grad.zero_()
    net.backward()
    expected, loss = net.flat.grad.clone(), float(net.loss.detach())
    assert expected.abs().min() < expected.abs().max()

    net.flat.grad.zero_()
    timer = NetTimer(net, {"images": feed}, "cpu")
    assert timer.forward() == pytest.approx(loss, rel=1e-6)
    timer.backward()
    torch.testing.assert_close(net.flat.grad, expected)
    assert timer.total > 0
    timer.reset()
    assert timer.total == 0
    assert [spent.name for spent in timer.times] == [step.param.name for step in net.steps]
