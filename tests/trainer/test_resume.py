"""`train --resume`: a run whose driver is gone goes on from its newest checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from prototxt_parser.text import print_text
from tiny_task import DROPOUT, tiny_net, tiny_param
from trainer.checkpoints import open_store
from trainer.cli import main, train_main

ROOT = Path(__file__).parents[2]
TRAIN = "import sys; from trainer.cli import train_main; sys.exit(train_main(sys.argv[1:]))"
ITERATIONS = 1400


@pytest.fixture
def task(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with data, net and solver."""
    (folder / "tiny.prototxt").write_text(print_text(tiny_net(DROPOUT).param))
    param = tiny_param(Path("tiny"), net="tiny.prototxt", max_iter=ITERATIONS, test_interval=700)
    (folder / "tiny_solver.prototxt").write_text(print_text(param))
    monkeypatch.chdir(folder)
    return folder


def command(strategy: str, out: str, *more: str) -> list[str]:
    flags = ["--solver", "tiny_solver.prototxt", "--out", out, "--seed", "11"]
    return [*flags, "--workers", "2", "--master", "in-process", "--strategy", strategy, *more]


def started(folder: Path, words: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", TRAIN, *words],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
        )


def kill_after_checkpoints(process: subprocess.Popen[bytes], store: Path, count: int) -> None:
    """Kill a run when so many checkpoints have come and gone, or 60 s have passed."""
    seen: set[str] = set()
    deadline = time.monotonic() + 60
    while len(seen) < count and time.monotonic() < deadline and process.poll() is None:
        seen |= {path.parent.name for path in store.glob("*/manifest.json")}
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert len(seen) >= count, (store.parent.parent / "output").read_text()


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "tiny_metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "strategy",
    [
        "sync",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("sparknet", "easgd", "diloco")),
    ],
)
def test_killed_synchronous_run_ends_as_one_that_was_not(
    task: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [] if strategy == "sync" else ["--sync-interval", "5"]
    options += ["--checkpoint-interval", "0.01"]
    assert train_main(command(strategy, "whole", *options)) == 0
    process = started(task, command(strategy, "killed", *options))
    kill_after_checkpoints(process, task / "killed/tiny_checkpoints", 3)
    assert not list((task / "killed").glob("*.caffemodel"))
    monkeypatch.chdir(task / "killed")  # the run's own folder is gone back to
    assert main(["train", "--resume", "tiny_checkpoints"]) == 0
    name = f"tiny_iter_{ITERATIONS}"
    for suffix in ("caffemodel", "solverstate"):
        whole, killed = (task / run / f"{name}.{suffix}" for run in ("whole", "killed"))
        if suffix == "caffemodel":
            assert killed.read_bytes() == whole.read_bytes()
        else:  # it names the model beside it
            assert killed.stat().st_size == whole.stat().st_size + len("killed") - len("whole")
    assert [r["accuracy"] for r in metrics(task / "killed") if r["kind"] == "test"][-1] == [
        r["accuracy"] for r in metrics(task / "whole") if r["kind"] == "test"
    ][-1]


@pytest.mark.parametrize("strategy", ["deepspark", "downpour", "asysg", "hogwild"])
def test_killed_asynchronous_run_goes_on_from_the_centre(task: Path, strategy: str) -> None:
    options = ["--checkpoint-interval", "0.05"]
    options += ["--server-adagrad", "0.001"] if strategy == "downpour" else []
    process = started(task, command(strategy, "killed", *options))
    kill_after_checkpoints(process, task / "killed/tiny_checkpoints", 2)
    checkpoint = open_store(str(task / "killed/tiny_checkpoints"), 2).latest()
    assert checkpoint is not None
    iterations = checkpoint.values["iterations"]
    assert sum(iterations) == checkpoint.iteration > 0
    assert train_main(["--resume", "killed/tiny_checkpoints"]) == 0
    assert (task / f"killed/tiny_iter_{ITERATIONS}.caffemodel").exists()
    last = {r["rank"]: r["worker_iteration"] for r in metrics(task / "killed") if "rank" in r}
    assert last == {0: ITERATIONS // 2, 1: ITERATIONS // 2}
    end = metrics(task / "killed")[-2:]
    assert any(record.get("event") == "end" for record in end)


def test_another_number_of_workers_may_go_on(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = started(task, command("sparknet", "killed"))
    kill_after_checkpoints(process, task / "killed/tiny_checkpoints", 3)
    assert train_main(["--resume", "killed/tiny_checkpoints", "--workers", "3"]) == 0
    out = capsys.readouterr().out
    assert "going on from" in out
    assert "3 workers" in out
    assert (task / f"killed/tiny_iter_{ITERATIONS}.caffemodel").exists()


def test_run_that_has_not_finished_is_not_overwritten(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = started(task, command("sparknet", "killed"))
    kill_after_checkpoints(process, task / "killed/tiny_checkpoints", 2)
    assert train_main(command("sparknet", "killed")) == 2
    assert "train --resume" in capsys.readouterr().err
    assert train_main(command("sparknet", "killed", "--checkpoints", "other")) == 0
    assert train_main(command("sparknet", "killed", "--checkpoints", "other")) == 0  # it finished


def test_changed_solver_is_told(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_main(command("sparknet", "run")) == 0
    solver = task / "tiny_solver.prototxt"
    solver.write_text(solver.read_text().replace(f"max_iter: {ITERATIONS}", "max_iter: 1450"))
    assert train_main(["--resume", "run/tiny_checkpoints"]) == 0
    assert "not as it was when the run was started" in capsys.readouterr().out
    assert (task / "run/tiny_iter_1450.caffemodel").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--resume", "nowhere"], "no such folder"),
        (["--resume", "."], "no run has saved itself there"),
        (["--resume"], "expected one argument"),
        (
            ["--solver", "tiny_solver.prototxt", "--checkpoints", "here"],
            "strategy single makes no checkpoints",
        ),
        (
            ["--solver", "tiny_solver.prototxt", "--workers", "2", "--checkpoint-interval", "-1"],
            "expected seconds, 0 or more",
        ),
    ],
)
def test_what_cannot_be_resumed_is_refused(
    task: Path, words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = train_main(words)
    except SystemExit as end:  # argparse's own
        status = int(str(end.code))
    assert status == 2
    assert reason in capsys.readouterr().err


def test_damaged_checkpoint_is_passed_over(
    task: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    process = started(task, command("sparknet", "killed"))
    kill_after_checkpoints(process, task / "killed/tiny_checkpoints", 3)
    found = open_store(str(task / "killed/tiny_checkpoints"), 2).all()
    assert len(found) >= 2
    newest, before = found[-1], found[-2]
    path = task / "killed/tiny_checkpoints" / newest.name / "rank_1.arrow"
    path.write_bytes(path.read_bytes()[:-100])
    assert train_main(["--resume", "killed/tiny_checkpoints"]) == 0
    assert f"iteration {before.iteration}" in capsys.readouterr().out
    assert "rank_1.arrow: expected" in caplog.text
