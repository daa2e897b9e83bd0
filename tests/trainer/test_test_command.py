"""`torrefy test`; that its numbers are Caffe's is held by test_runs_golden.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from image_databases import images, make_image_lmdb

from golden_cases import GOLDEN
from prototxt_parser import build_net, read_net, save_weights
from trainer.cli import main

NET = """name: "small"
layer {
  name: "images" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.01 }
  data_param { source: "images_lmdb" batch_size: 4 backend: LMDB }
  include { phase: TEST }
}
layer { name: "score" type: "InnerProduct" bottom: "data" top: "score"
  inner_product_param { num_output: 11 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "score" bottom: "label" top: "accuracy" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""
FLAGS = ["test", "-model=small.prototxt", "-weights=small.caffemodel"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a net, its weights, and in `elsewhere` a database of 11 images."""
    (tmp_path / "elsewhere").mkdir()
    make_image_lmdb(tmp_path / "elsewhere/images_lmdb", images(11))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.prototxt").write_text(NET)
    shape = next(iter(images(1))).shape
    shapes = {"data": (4, *shape), "label": (4,)}
    save_weights(
        build_net(read_net("small.prototxt"), "TEST", input_shapes=shapes), "small.caffemodel"
    )
    return tmp_path


def said(log: str) -> list[str]:
    """Return source file and message of the lines that caffe.cpp prints, numbers as N."""
    lines = re.findall(r"^I\d{4} \S+ +\d+ (caffe\.cpp):\d+\] (.*)$", log, re.M)
    return [f"{file} {re.sub(r'[-+.0-9e]*[0-9]', 'N', message)}" for file, message in lines]


def test_lines_are_those_of_a_recorded_log(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FLAGS, "-iterations", "6", "-data", "elsewhere"]) == 0
    log = capsys.readouterr().err
    recorded = (GOLDEN / "logs/test.log").read_text()
    assert said(log) == said(recorded)
    means = dict(re.findall(r"caffe\.cpp:\d+\] (\w+) = (\S+)", log))
    for name, mean in means.items():
        values = [float(v) for v in re.findall(rf"Batch \d, {name} = (\S+)", log)]
        assert len(values) == 6
        assert float(mean) == pytest.approx(sum(values) / 6, rel=1e-4)


def test_batches_follow_the_database_and_repeat(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main([*FLAGS, "-iterations", "22", "-data", "elsewhere"]) == 0
    losses = re.findall(r"Batch \d+, loss = (\S+)", capsys.readouterr().err)
    assert losses[:11] == losses[11:22]  # 44 images are the 11 four times
    assert losses[:22] == losses[22:]
    assert len(set(losses[:11])) > 1


def test_input_layers_hold_zeros(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "deploy.prototxt").write_text("""
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "up" type: "Power" bottom: "x" top: "y" power_param { shift: 1.5 } }
""")
    flags = ["test", "--model", "deploy.prototxt", "--weights", "small.caffemodel"]
    assert main([*flags, "--iterations", "2"]) == 0
    log = capsys.readouterr().err
    assert log.count("Ignoring source layer score\n") == 1
    assert re.findall(r"Batch 1, y = (\S+)", log) == ["1.5"] * 6
    assert "] Loss: 0\n" in log


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["test", "-weights=staged.caffemodel", "-model=staged.prototxt"], "Batch 0, both = "),
        (["time", "-phase=TEST", "-model=staged.prototxt"], "both\tforward: "),
        (["summary", "staged.prototxt"], "both"),
    ],
)
def test_stages_of_the_file_and_of_the_flag_add_up(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str], shown: str
) -> None:
    (folder / "staged.prototxt").write_text(
        'state { stage: "a" } layer { name: "x" type: "Input" top: "x" '
        "input_param { shape { dim: 2 dim: 3 } } }"
        'layer { name: "both" type: "ReLU" bottom: "x" top: "both" '
        'include { stage: "a" stage: "b" } }'
    )
    save_weights(build_net(read_net("staged.prototxt"), "TEST"), "staged.caffemodel")
    assert main([*command, "-stage=b"]) == 0
    printed = capsys.readouterr()
    assert shown in printed.out + printed.err


WRONG = {
    "no model": (["test", "-weights=w"], "Need a model definition to score."),
    "no weights": (["test", "-model=small.prototxt"], "Need model weights to score."),
    "missing model": (["test", "-model=smal.prototxt", "-weights=w"], "smal.prototxt: no such"),
    "missing weights": (
        ["test", "-model=small.prototxt", "-weights=a.caffemodel,b", "-data=elsewhere"],
        "a.caffemodel,b: cannot read the weights: No such file",
    ),
    "gpu": ([*FLAGS, "-gpu=one"], '-gpu: expected numbers such as 0 or 0,1, or "all"'),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_ends_in_one_message_and_status_2(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, message = WRONG[name]
    assert main(argv) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.parametrize("count", ["0", "-3", "many"])
def test_iterations_must_be_a_count(
    count: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*FLAGS, f"-iterations={count}"])
    assert ended.value.code == 2
    assert f"expected 1 or more; received {count}" in capsys.readouterr().err


def test_missing_data_fails_with_status_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(FLAGS) == 1
    assert (
        'error: small.prototxt:2:1: layer "images" (Data): images_lmdb' in capsys.readouterr().err
    )
