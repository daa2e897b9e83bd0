"""A driver whose own Java process is killed says so."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from prototxt_parser.text import print_text
from tiny_task import tiny_net, tiny_param

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
TRAIN = "import sys; from trainer.cli import train_main; sys.exit(train_main(sys.argv[1:]))"


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_java(process: subprocess.Popen[str], folder: Path) -> None:
    """Kill it when there is something to go on from."""
    deadline = time.monotonic() + 120
    while not list(folder.glob("out/tiny_checkpoints/iter_[1-9]*/manifest.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    (java,) = [p for p in psutil.Process(process.pid).children() if p.name() == "java"]
    java.kill()


@pytest.mark.parametrize("strategy", ["deepspark", "sparknet"])
def test_run_that_loses_its_java_process(folder: Path, strategy: str) -> None:
    (folder / "tiny.prototxt").write_text(print_text(tiny_net().param))
    param = tiny_param(Path("tiny"), net="tiny.prototxt", max_iter=100000, test_interval=50000)
    (folder / "tiny_solver.prototxt").write_text(print_text(param))
    words = ["--workers", "2", "--strategy", strategy, "--sync-interval", "5"]
    process = start(folder, "--solver", "tiny_solver.prototxt", "--out", "out", *words)
    try:
        kill_java(process, folder)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith("error: Spark's Java process beside the driver has")
    assert str(ROOT / "trainer") not in said  # no traceback of ours
