"""The log of `train`: which lines come in which order, and how a failed run ends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from image_databases import images, make_image_lmdb

from golden_cases import GOLDEN
from trainer.cli import train_main
from trainer.device import gpu_numbers, log_gpus, one_gpu
from trainer.errors import UsageError

NET = """name: "LeNet"
layer { name: "mnist" type: "Data" top: "data" top: "label"
  data_param { source: "images_lmdb" batch_size: 4 backend: LMDB } }
layer { name: "HEAD" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 11 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 1e-7 lr_policy: "inv" gamma: 1e-4 power: 0.75
display: 10 max_iter: 20 test_iter: 2 test_interval: 50 snapshot_prefix: "f" """


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_image_lmdb(tmp_path / "images_lmdb", images(11))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


def said(log: str) -> list[str]:
    """Return the messages that logs/ keeps, values as N and files as F; sources are not compared.

    The collection's logs hold only lines that parsers read, so others of ours are left out.
    """
    kept = (
        r"    \[|Use CPU|Creating t|Finetuning|Ignoring source|Solver scaff|Starting Opt|Solving"
        r"|Learning |Iteration|    T|Snapshotting|Optimization"
    )
    messages = re.findall(rf"^[IE]\d{{4}} \S+ +\d+ \w+\.cpp:\d+\] ((?:{kept}).*)$", log, re.M)
    messages = [re.sub(r"\S+\.(prototxt|caffemodel|solverstate)", "F", line) for line in messages]
    return [re.sub(r"(?<= |\(|#)-?\d[-+.\de]*", "N", line) for line in messages]


def test_lines_of_finetuning_come_in_caffes_order(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "net.prototxt").write_text(NET.replace("HEAD", "ip2"))
    assert train_main(["-solver", "solver.prototxt"]) == 0
    (folder / "net.prototxt").write_text(NET.replace("HEAD", "fresh"))
    capsys.readouterr()
    assert train_main(["-solver", "solver.prototxt", "-weights", "f_iter_20.caffemodel"]) == 0
    assert said(capsys.readouterr().err) == said((GOLDEN / "logs/train_finetune.log").read_text())


def test_debug_info_prints_the_lines_of_a_recorded_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for phase in ("train", "test"):
        make_image_lmdb(tmp_path / f"mnist_{phase}_lmdb", images(10, 1, 28, 28))
    (tmp_path / "solver.prototxt").write_text("""net: "lenet.prototxt" debug_info: true
base_lr: 0.01 lr_policy: "inv" gamma: 0.0001 power: 0.75 display: 3 max_iter: 6
test_iter: 5 test_interval: 500 snapshot_prefix: "d" """)
    assert train_main(["-solver", "solver.prototxt", "--data", "."]) == 0
    recorded = (GOLDEN / "logs/train_debug_info.log").read_text()
    assert said(capsys.readouterr().err) == said(recorded)


def test_solver_and_data_are_described(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "net.prototxt").write_text(NET.replace("HEAD", "ip"))
    assert train_main(["-solver", "solver.prototxt"]) == 0
    log = capsys.readouterr().err
    for message in (
        "Initializing solver from parameters: \ntest_iter: 2\ntest_interval: 50\nbase_lr: 1e-07\n",
        'Initializing net from parameters: \nname: "LeNet"\n',
        "] output data size: 4,3,5,7\n",
        "] Restarting data prefetching from start.\n",
        "] ip <- data\n",
        "] ip -> ip\n",
        "] Top shape: 4 11 (44)\n",
        "] ip needs backward computation.\n",
        "] Network initialization done.\n",
    ):
        assert message in log


def test_workers_in_this_process_do_not_log_their_nets(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "net.prototxt").write_text(NET.replace("HEAD", "ip"))
    flags = ["--workers", "2", "--master", "in-process"]
    assert train_main(["-solver", "solver.prototxt", *flags]) == 0
    log = capsys.readouterr().err
    assert log.count("Solver scaffolding done.") == 1
    assert log.count("Initializing net from parameters: ") == 2  # the driver's, to train and test


SOURCES = {
    'net: "net.prototxt"': ("from net file: net.prototxt", "net file: net.prototxt"),
    'train_net: "net.prototxt" test_net: "net.prototxt"': (
        "from train_net file: net.prototxt",
        "test_net file: net.prototxt",
    ),
    "net_param { NET }": ("specified in net_param", "net_param"),
    "train_net_param { NET } test_net_param { NET }": (
        "specified in train_net_param",
        "test_net_param",
    ),
}


@pytest.mark.parametrize("fields", SOURCES)
def test_the_log_says_where_nets_come_from(
    fields: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = NET.replace("HEAD", "ip")
    (folder / "net.prototxt").write_text(net)
    solver = SOLVER.replace('net: "net.prototxt"', fields.replace("NET", net))
    (folder / "solver.prototxt").write_text(solver)
    assert train_main(["-solver", "solver.prototxt"]) == 0
    log = capsys.readouterr().err
    train, test = SOURCES[fields]
    assert re.findall(r"Creating training net (.*)", log) == [train]
    assert re.findall(r"Creating test net \(#0\) specified by (.*)", log) == [test]


def test_a_run_that_fails_says_so_in_the_last_line_of_its_log(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "net.prototxt").write_text(NET.replace("images_lmdb", "none_lmdb"))
    assert train_main(["-solver", "solver.prototxt", "--out", "runs"]) == 1
    last = (folder / "runs/f_train.log").read_text().splitlines()[-1]
    assert re.match(r"F\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ caffe\.cpp:\d+\] net\.prototxt:2:1: ", last)
    errors = [line for line in capsys.readouterr().err.splitlines() if "none_lmdb" in line]
    assert len([line for line in errors if line.startswith("error: net.prototxt:2:1: ")]) == 1
    assert not any(line.startswith("F") for line in errors)


def pretend_gpus(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device}")


def test_caffes_gpu_flag_names_numbers_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(3, monkeypatch)
    assert [gpu_numbers(text) for text in ("", "2", "2,0", "all")] == [[], [2], [2, 0], [0, 1, 2]]
    assert [one_gpu(text) for text in ("", "2", "2,0", "all")] == [
        "cpu", "cuda:2", "cuda:2", "cuda:0",
    ]  # fmt: skip
    for text in ("3", "0,7"):
        with pytest.raises(UsageError, match=f"-gpu {text}: PyTorch finds 3 CUDA devices here"):
            gpu_numbers(text)
    for text in ("one", "0,", "-1", "0 1"):
        with pytest.raises(UsageError, match="-gpu: expected numbers such as 0 or 0,1"):
            gpu_numbers(text)
    pretend_gpus(0, monkeypatch)
    with pytest.raises(UsageError, match="-gpu all: PyTorch finds 0 CUDA devices here"):
        gpu_numbers("all")


def test_the_gpu_of_a_run_is_logged_in_caffes_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend_gpus(2, monkeypatch)
    with caplog.at_level("INFO"):
        log_gpus("cuda:1")
        log_gpus("cpu")
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["Using GPUs 1", "GPU 1: card 1", "Use CPU."]


def test_several_gpus_are_for_several_workers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "net.prototxt").write_text(NET)
    pretend_gpus(2, monkeypatch)
    for flags, message in (
        (["-gpu", "all"], "-gpu all: a worker trains on one GPU; received 2. For several give "
         "--device cuda --workers 2"),
        (["-gpu", "1", "--device", "cpu"], "give --gpu or --device; received 1 and cpu"),
    ):  # fmt: skip
        assert train_main(["-solver", "solver.prototxt", *flags, "--dry-run"]) == 2
        assert f"error: {message}" in capsys.readouterr().err
    assert train_main(["-solver", "solver.prototxt", "-gpu=1", "--dry-run"]) == 0
    assert "device     cuda:1" in capsys.readouterr().out
