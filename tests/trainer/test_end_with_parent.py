"""Tests of processes that end with those that have started them."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")

ROOT = Path(__file__).parents[2]
# The parent ends with its input; the child says whether it goes on.
PARENT = """
import os, subprocess, sys
command = [sys.executable, "-c", sys.argv[1], str(os.getpid())]
child = subprocess.Popen(command, stdin=subprocess.PIPE)
print(child.pid, flush=True)
sys.stdin.read()
"""
CHILD = """
import os, sys, time
from trainer.end_with_parent import end_with_parent
parent = int(sys.argv[1])
{before}
end_with_parent(parent)
print("goes on", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("before", "words"),
    [("", ["goes on"]), ("while os.getppid() == parent: time.sleep(0.01)", [])],
    ids=["its parent lives", "its parent has ended"],
)
def test_child_ends_with_its_parent(before: str, words: list[str]) -> None:
    command = [sys.executable, "-c", PARENT, CHILD.format(before=before)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        said = [parent.stdout.readline().strip() for _ in words]
        parent.stdin.close()
        _, alive = psutil.wait_procs([child], timeout=30)
        assert not alive
        assert said + parent.stdout.read().split() == words
