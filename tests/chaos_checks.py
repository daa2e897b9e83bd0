"""What a run in chaos must not do, and must not leave behind."""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from prototxt_parser.layers import registry as layers
from solvers import Callback, Solver
from tiny_task import Recorder
from trainer.extensions import Extensions
from trainer.strategies import registry as strategies

PARTS = Path(__file__).with_name("chaos_parts.py")
PAUSE = 'layer { name: "pause" type: "Pause" bottom: "hidden" top: "hidden" }'
_GONE_S = 30.0


def install_parts(monkeypatch: pytest.MonkeyPatch) -> Extensions:
    """Return the module of the user's own that runs are made with; it is forgotten after a test."""
    monkeypatch.setattr(layers, "_LAYERS", dict(layers._LAYERS))
    monkeypatch.setattr(strategies, "_strategies", dict(strategies._strategies))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, PARTS.stem, raising=False)
    found = Extensions((PARTS.name,), folder=str(PARTS.parent))
    found.install()
    return found


class Journal(Recorder):
    """Keeps what it hears in one sequence: exchanges, losses of all workers, tests.

    Attributes:
        story: What, whose (-1 for the run), at which iteration of theirs.
        reached: Iteration of the run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.story: list[tuple[str, int, int]] = []
        self.reached = 0

    def on_exchange(self, record: Mapping[str, Any]) -> None:
        super().on_exchange(record)
        self.story.append(("exchange", record["rank"], record["worker_iteration"]))

    def on_progress(self, iteration: int, loss: float) -> None:
        self.reached = iteration

    def on_event(self, what: str, iteration: int, values: Mapping[str, Any]) -> None:
        super().on_event(what, iteration, values)
        if what == "lost":
            self.story.append(("lost", -1, iteration))

    def check(self, workers: int = 2) -> None:
        """See that nobody has gone back, unless all workers were lost."""
        parts: list[list[tuple[str, int, int]]] = [[]]
        for line in self.story:
            if line[0] == "lost":
                parts.append([])
            else:
                parts[-1].append(line)
        for part in parts:
            for rank in range(-1, workers):
                own = [iteration for _, whose, iteration in part if whose == rank]
                assert own == sorted(set(own)), f"{rank}: {own}"


class TellTests(Callback):
    """Tells a journal of tests."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def on_test(self, solver: Solver, results: list[dict[str, float]]) -> None:
        del results
        self._journal.story.append(("test", -1, solver.iteration))


def wait_for_end(find: Callable[[], list[psutil.Process]]) -> None:
    """Return when a run has no process left but Spark's own, which a Python process keeps.

    Raises:
        AssertionError: Some stay.
    """
    deadline = time.monotonic() + _GONE_S
    while left := [each for each in find() if each.ppid() != os.getpid()]:
        if time.monotonic() > deadline:
            words = []
            for process in left:
                with suppress(psutil.Error):
                    line = f"{process.pid} of {process.ppid()}, {process.status()}: "
                    words.append(line + " ".join(process.cmdline())[-300:])
            raise AssertionError("orphans:\n" + "\n".join(words))
        time.sleep(0.2)


@dataclass(frozen=True)
class Belongings:
    """What this process has that a run might leave behind.

    Attributes:
        ports: Where it listens.
        files: In the folder of temporary files.
        threads: Those to which we have given names.
    """

    ports: frozenset[tuple[str, int]]
    files: frozenset[str]
    threads: frozenset[str]

    @classmethod
    def now(cls) -> Self:
        """Return what there is."""
        connections = psutil.Process().net_connections("tcp")
        listening = [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]
        names = [thread.name for thread in threading.enumerate()]
        temporary = Path(tempfile.gettempdir()).iterdir()
        return cls(
            frozenset((address.ip, address.port) for address in listening),
            frozenset(str(path) for path in temporary if path.name.startswith("torrefy")),
            frozenset(name for name in names if not name.startswith(("Dummy-", "Thread-"))),
        )
