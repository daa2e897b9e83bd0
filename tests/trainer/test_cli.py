"""The program `train` as a user meets it: what it prints, writes, and ends with."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from image_databases import images, make_image_lmdb

from prototxt_parser import build_net, load_weights, read_net
from trainer.cli import main, train_main
from trainer.commands import train

ROOT = Path(__file__).parents[2]
NET = """name: "small"
layer {
  name: "images" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.01 mirror: true crop_size: 4 }
  data_param { source: "images_lmdb" batch_size: 6 backend: LMDB }
}
layer { name: "score" type: "InnerProduct" bottom: "data" top: "score"
  inner_product_param { num_output: 11 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "score" top: "score" }
layer { name: "accuracy" type: "Accuracy" bottom: "score" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""
SOLVER = """net: "small.prototxt"
base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 max_iter: 24 display: 8
test_iter: 2 test_interval: 12 snapshot_prefix: "small"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a net, its solver and a database of 11 images."""
    make_image_lmdb(tmp_path / "images_lmdb", images(11))
    (tmp_path / "small.prototxt").write_text(NET)
    (tmp_path / "small_solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_net_alone_takes_the_solver_beside_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_main(["--net", "small.prototxt", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    assert "no --solver given: using small_solver.prototxt" in out
    assert "24 iterations, 144 samples" in out
    assert "Testing net (#0)" in err
    names = {path.name for path in folder.iterdir()}
    assert {
        "small_iter_24.caffemodel",
        "small_iter_24.solverstate",
        "small_iter_24.resume.json",
    } < names
    records = [
        json.loads(line) for line in (folder / "small_metrics.jsonl").read_text().splitlines()
    ]
    assert [(r["kind"], r["iteration"]) for r in records] == [
        ("start", 0), ("test", 0), ("event", 0), ("train", 0), ("train", 8), ("test", 12),
        ("train", 16), ("train", 24), ("test", 24), ("event", 24),
    ]  # fmt: skip
    assert all(r["samples"] == 6 * r["iteration"] for r in records)
    assert [r["event"] for r in records if r["kind"] == "event"] == ["begin", "end"]
    assert {"loss", "lr", "seconds"} <= records[3].keys()
    assert 0 <= records[1]["accuracy"] <= 1


def test_log_lines_have_caffes_prefix(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-solver=small_solver.prototxt", "--out", "runs/one"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == (folder / "runs/one/small_train.log").read_text().splitlines()
    pattern = re.compile(r"^I\d{4} \d\d:\d\d:\d\d\.\d{6} [ \d]{5} \w+\.(cpp|py):\d+\] ")
    text = "\n".join(lines)
    # Solver and nets are logged as their prototxt, in lines of their own.
    without_nets = re.sub(r"(from parameters: )\n(?:(?!I\d{4} ).*\n)+", r"\1\n", text)
    assert without_nets.count("from parameters: ") == 3
    assert all(pattern.match(line) for line in without_nets.splitlines())
    assert re.search(
        r"solver\.cpp:\d+\] Iteration 8 \(\S+ iter/s, \S+s/8 iters\), loss = \S+$", text, re.M
    )
    assert text.count("Optimization Done.") == 2
    assert logging.getLogger("solvers").level == logging.NOTSET


def test_resumed_training_equals_the_uninterrupted_one_bit_for_bit(folder: Path) -> None:
    whole = ["--solver", "small_solver.prototxt", "--seed", "5", "--out"]
    assert train_main([*whole, "whole"]) == 0
    text = SOLVER.replace("max_iter: 24", "max_iter: 13")
    (folder / "half_solver.prototxt").write_text(text)
    assert train_main(["--solver", "half_solver.prototxt", "--seed", "5", "--out", "half"]) == 0
    state = "half/small_iter_13.solverstate"
    assert (
        train_main(["--solver", "small_solver.prototxt", "--snapshot", state, "--out", "half"]) == 0
    )
    for suffix in (".caffemodel", ".solverstate"):
        whole_file, half_file = (folder / d / f"small_iter_24{suffix}" for d in ("whole", "half"))
        expected = whole_file.read_bytes().replace(b"whole/small", b"half/small")
        if suffix == ".caffemodel":
            assert whole_file.read_bytes() == half_file.read_bytes()
        else:  # the name of the model inside differs in length
            assert expected[-400:] == half_file.read_bytes()[-400:]


def test_dry_run_needs_no_data_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--workers", "4", "--strategy", "sparknet", "--sync-interval", "50", "--dry-run"]
    assert train_main(["--net", "cifar10_quick.prototxt", "--out", "runs", *flags]) == 0
    out = capsys.readouterr().out
    assert "sparknet (sync_interval 50), 4 workers on local Spark" in out
    assert "max_iter 4000 of all workers together: 1000 iterations per worker" in out
    assert "400000 samples, 20 rounds" in out
    assert "snapshots  runs/cifar10_quick_iter_N.caffemodel" in out
    assert "no such folder" not in out
    assert train_main(["--net", "cifar10_quick.prototxt", "--dry-run"]) == 0
    assert "examples/cifar10: no such folder for snapshots; make it" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_own_file_hides_the_shipped_one_of_its_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "lenet.prototxt").write_text(NET)
    assert train_main(["--net", "lenet.prototxt", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "net        lenet.prototxt" in out
    assert "lenet_solver.prototxt" in out


def test_deploy_net_trains_the_net_of_its_solver(capsys: pytest.CaptureFixture[str]) -> None:
    assert train_main(["--net", "lenet_deploy.prototxt", "--dry-run"]) == 0
    assert "lenet_deploy.prototxt has no loss: training the net that" in capsys.readouterr().out


def test_weights_start_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_main(["--solver", "small_solver.prototxt", "--out", "first"]) == 0
    text = SOLVER.replace("base_lr: 0.05", "base_lr: 0")
    (folder / "still_solver.prototxt").write_text(text)
    weights = "first/small_iter_24.caffemodel"
    assert (
        train_main(["--solver", "still_solver.prototxt", "--weights", weights, "--out", "second"])
        == 0
    )
    first, second = (
        build_net(
            read_net("small.prototxt"), "TEST", input_shapes={"data": (6, 3, 4, 4), "label": (6,)}
        )
        for _ in range(2)
    )
    load_weights(first, weights)
    load_weights(second, "second/small_iter_24.caffemodel")
    assert torch.equal(first.flat.data, second.flat.data)


@pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])
def test_workers_take_turns_without_spark(folder: Path, strategy: str) -> None:
    flags = [
        "--strategy",
        strategy,
        "--workers",
        "2",
        "--master",
        "in-process",
        "--sync-interval",
        "3",
    ]
    assert train_main(["--net", "small.prototxt", "--out", "two", *flags]) == 0
    records = [
        json.loads(line) for line in (folder / "two/small_metrics.jsonl").read_text().splitlines()
    ]
    exchanges = [r for r in records if r["kind"] == "exchange"]
    assert {r["rank"] for r in exchanges} == {0, 1}
    assert max(r["samples"] for r in exchanges) == 24 * 6
    assert {"loss", "lr", "compute_s", "exchange_s", "staleness"} <= exchanges[0].keys()
    assert [r["iteration"] for r in records if r["kind"] == "test"] == [0, 12, 24]
    assert (folder / "two/small_iter_24.solverstate").exists()


def test_one_worker_of_sparknet_equals_single_bit_for_bit(folder: Path) -> None:
    common = ["--net", "small.prototxt", "--seed", "9", "--out"]
    assert train_main([*common, "single"]) == 0
    assert train_main([*common, "one", "--strategy", "sparknet", "--sync-interval", "5"]) == 0
    name = "small_iter_24.caffemodel"
    assert (folder / "single" / name).read_bytes() == (folder / "one" / name).read_bytes()


NET_FLAGS = ["--net", "small.prototxt"]
USAGE = {
    "neither": ([], "Need a solver definition to train"),
    "both": (
        [*NET_FLAGS, "--weights", "a", "--snapshot", "b"],
        "Give a snapshot to resume training or weights to finetune but not both.",
    ),
    "missing net": (["--net", "smal.prototxt"], "smal.prototxt: no such file"),
    "foreign flag": (
        [*NET_FLAGS, "--moving-rate", "0.1"],
        "--moving-rate: not a flag of strategy single",
    ),
    "foreign file": (
        [*NET_FLAGS, "--strategy", "sparknet", "--deepspark-conf", "x"],
        "--deepspark-conf is a flag of strategy deepspark",
    ),
    "single with workers": (
        [*NET_FLAGS, "--strategy", "single", "--workers", "2"],
        "strategy single is one process",
    ),
    "no workers": (
        [*NET_FLAGS, "--workers", "0"],
        "num_workers: expected 1 or more; received 0",
    ),
    "rate": (
        [*NET_FLAGS, "--strategy", "deepspark", "--moving-rate", "1.5"],
        "moving_rate: expected 0 to 1; received 1.5",
    ),
    "folder": ([*NET_FLAGS, "--out", "small.prototxt"], "--out small.prototxt: cannot be made"),
    "device": ([*NET_FLAGS, "--device", "warp"], "--device warp: PyTorch cannot use it here"),
    "no state": (
        [*NET_FLAGS, "--snapshot", "none.solverstate"],
        "none.solverstate: cannot read the solver state: No such file",
    ),
    "no weights": (
        [*NET_FLAGS, "--weights", "none.caffemodel"],
        "none.caffemodel: cannot read the weights: No such file",
    ),
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage_ends_in_one_message_and_status_2(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, message = USAGE[name]
    assert train_main(argv) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def break_lmdb(folder: Path) -> None:
    for path in (folder / "images_lmdb").iterdir():
        path.unlink()
    (folder / "images_lmdb").rmdir()


def cut_lmdb(folder: Path) -> None:
    data = folder / "images_lmdb" / "data.mdb"
    data.write_bytes(data.read_bytes()[:9000])


def edit(old: str, new: str) -> object:
    def change(folder: Path) -> None:
        text = (folder / "small.prototxt").read_text()
        assert old in text
        (folder / "small.prototxt").write_text(text.replace(old, new))

    return change


BROKEN = {
    "missing database": (break_lmdb, 'small.prototxt:2:1: layer "images" (Data): images_lmdb'),
    "cut database": (cut_lmdb, 'small.prototxt:2:1: layer "images" (Data): images_lmdb'),
    "wrong field": (
        edit("num_output", "num_outputs"),
        'small.prototxt:8:25: unknown field "num_outputs"',
    ),
    "unknown layer": (
        edit('"Dropout"', '"DropOut"'),
        'small.prototxt:9:1: layer "drop" (DropOut): Unknown layer type: DropOut',
    ),
    "crop too large": (edit("crop_size: 4", "crop_size: 40"), 'layer "images" (Data)'),
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_files_end_in_one_message(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = BROKEN[name]
    damage(folder)  # type: ignore[operator]
    assert train_main(["--net", "small.prototxt"]) in (1, 2)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


def test_weights_of_another_shape_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_main(["--net", "small.prototxt", "--out", "first"]) == 0
    edit("num_output: 11", "num_output: 12")(folder)  # type: ignore[operator]
    weights = "first/small_iter_24.caffemodel"
    before = (folder / weights).read_bytes()
    assert train_main(["--net", "small.prototxt", "--weights", weights]) == 2
    assert (
        "Cannot copy param 0 weights from layer 'score'; shape mismatch" in capsys.readouterr().err
    )
    assert (folder / weights).read_bytes() == before


@pytest.mark.parametrize(
    ("number", "ends"), [(signal.SIGINT, True), (signal.SIGHUP, False)], ids=["SIGINT", "SIGHUP"]
)
def test_signals_do_what_caffes_do(folder: Path, number: signal.Signals, ends: bool) -> None:
    (folder / "small_solver.prototxt").write_text(
        SOLVER.replace("max_iter: 24", "max_iter: 1000000")
    )
    command = [
        sys.executable,
        "-c",
        "from trainer.cli import train_main; raise SystemExit(train_main())",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--net", "small.prototxt"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "Iteration 8 " in line:
                break
        process.send_signal(number)
        if not ends:
            for line in process.stderr:
                if "Snapshotting solver state" in line:
                    break
            time.sleep(0.2)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 0
    assert "Optimization stopped early." in rest
    assert len(list(folder.glob("*.solverstate"))) == (1 if ends else 2)


def test_full_disk_ends_the_run_in_one_message(folder: Path) -> None:
    """A process that may write only small files stands for a disk that is full."""
    script = (
        "import resource, torch; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500));"
        "from trainer.cli import train_main; raise SystemExit(train_main())"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, *NET_FLAGS, "--out", "full"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    errors = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "small_train.log: cannot write the log: [Errno 27] File too large" in errors[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--threads", "0"], "argument --threads: expected 1 or more; received 0"),
        (["--port", "65536"], "argument --port: expected 0 to 65535; received 65536"),
    ],
)
def test_numbers_out_of_range_are_wrong_flags(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        train_main([*NET_FLAGS, *flags])
    assert capsys.readouterr().err.splitlines()[-1] == f"train: error: {message}"


@pytest.mark.parametrize(
    "error",
    [MemoryError("9 GiB"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 GiB")],
)
def test_memory_that_there_is_not_ends_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: object) -> int:
        raise error

    monkeypatch.setattr(train, "run", run)
    assert train_main(NET_FLAGS) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: out of memory ({error}); smaller batches or images need less"


def test_other_runtime_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: object) -> int:
        raise RuntimeError("a defect")

    monkeypatch.setattr(train, "run", run)
    with pytest.raises(RuntimeError, match="a defect"):
        train_main(NET_FLAGS)


SCRIPT = "from trainer.cli import main; raise SystemExit(main())"


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_is_no_error(closed: int) -> None:
    words = ["summary", "lenet_deploy.prototxt"]
    process = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$@" {closed}>&-', sys.executable, SCRIPT, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert ("431,080" in process.stdout) == (closed == 2)


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text('name: "Netz-ä"', encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, "summary", "net.prototxt"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("Netz-\\xe4, TEST")
