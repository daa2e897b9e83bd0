"""What is recorded of a run, and its metrics file: JSON lines, one per display, test and exchange.

Every line has `kind`, `iteration` (of the run), `samples` and `seconds` since the start; beyond
that,

* `start`, the first one, and again where a resumed run goes on, with `seconds` from 0: what
  `trainer.start_record` lists;
* `train`: loss, lr;
* `test`: net, its number, and the outputs of the test net, accuracy first among them;
* `exchange`: what `trainer.tally.Observer.on_exchange` lists;
* `event`: event, and what is known of it. `begin`, once after each start: the first iteration
  begins, in a run with workers once the first of them is up; to count from there leaves out the
  start of Spark and the first test. `lost`, `straggler`, `dropped`: see
  `trainer.tally.Observer.on_event`. `end`: it is over, or was asked to stop; with workers, a row
  for each. A run that failed or was killed has none.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, final

from solvers import Callback, Solver
from trainer.errors import TrainerError


class Sink(Protocol):
    """Keeps records."""

    def write(self, kind: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Keep one."""


@final
class Records:
    """What is recorded of a run, for all that keep it."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks, self._has_begun = sinks, False

    def write(self, kind: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Pass on one record."""
        for sink in self._sinks:
            sink.write(kind, iteration, values)

    def write_event(self, what: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Pass on an event; of several beginnings, such as after a warm start, the first."""
        if what == "begin" and self._has_begun:
            return
        self._has_begun = self._has_begun or what == "begin"
        self.write("event", iteration, {"event": what, **values})


@final
class MetricsFile:
    """Writes records to a JSON-lines file.

    Args:
        path: The file.
        samples_per_iteration: Images that one iteration sees.
        is_resumed: Continue an existing file; else it is replaced.

    Raises:
        TrainerError: The file cannot be opened.
    """

    def __init__(self, path: Path, samples_per_iteration: int, *, is_resumed: bool) -> None:
        self.path, self._samples = path, samples_per_iteration
        self._start = time.monotonic()
        try:
            self._file = path.open("a" if is_resumed else "w", buffering=1)
        except OSError as error:
            raise TrainerError(f"{path}: cannot write metrics: {error.strerror}") from error

    def write(self, kind: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Append one record; numbers that JSON lacks (NaN, infinities) become null."""
        record = {
            "kind": kind,
            "iteration": iteration,
            "samples": iteration * self._samples,
            "seconds": round(time.monotonic() - self._start, 3),
            **{name: _plain(value) for name, value in values.items()},
        }
        try:
            self._file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise TrainerError(f"{self.path}: cannot write metrics: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; what did not fit was reported when it was written."""
        with suppress(OSError):
            self._file.close()


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class MetricsCallback(Callback):
    """Records what a solver displays and tests, and when it begins."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def on_start(self, solver: Solver) -> None:
        """Record the first iteration."""
        self._records.write_event("begin", solver.iteration, {})

    def on_display(self, solver: Solver, iteration: int) -> None:
        """Record loss and rate."""
        values = {"loss": solver.smoothed_loss, "lr": solver.lr}
        self._records.write("train", iteration, values)

    def on_test(self, solver: Solver, results: Sequence[dict[str, float]]) -> None:
        """Record the outputs of every test net."""
        for number, outputs in enumerate(results):
            self._records.write("test", solver.iteration, {"net": number, **outputs})
