"""The metrics file of a run: JSON lines, one per display, test and exchange.

Every line has `kind`, `iteration` (of the run), `samples` and `seconds` since the start; beyond
that, `train`: loss, lr; `test`: the outputs of the test net, accuracy first among them;
`exchange`: rank, loss, lr, compute_s, exchange_s, staleness.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from solvers import Callback, Solver
from trainer.errors import TrainerError


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
    """Writes what a solver displays and tests."""

    def __init__(self, metrics: MetricsFile) -> None:
        self._metrics = metrics

    def on_display(self, solver: Solver, iteration: int) -> None:
        """Write loss and rate."""
        values = {"loss": solver.smoothed_loss, "lr": solver.lr}
        self._metrics.write("train", iteration, values)

    def on_test(self, solver: Solver, results: Sequence[dict[str, float]]) -> None:
        """Write the outputs of every test net."""
        for number, outputs in enumerate(results):
            self._metrics.write("test", solver.iteration, {"net": number, **outputs})
