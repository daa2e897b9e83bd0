"""The progress bar that a terminal shows instead of log lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Never

from tqdm import tqdm

from solvers import Callback, Solver


class ProgressBar(Callback):
    """Iterations done, loss, speed and the last accuracy, on standard error.

    With workers also the mean staleness of their last exchanges, and how many are heard of, each
    only if there is something to tell.

    Args:
        total: Iterations of the whole run.
        done: Iterations that a snapshot had completed.
        batch: Images of an iteration.
        workers: How many there are.
    """

    def __init__(self, total: int, done: int, batch: int, workers: int) -> None:
        self._bar: tqdm[Never] = tqdm(total=total, initial=done, unit="it", dynamic_ncols=True)
        self._values: dict[str, str] = {}
        self._batch, self._workers = batch, workers
        self._staleness: dict[int, int] = {}
        self._silent: set[int] = set()

    def on_iteration(self, solver: Solver, loss: float) -> None:
        """Advance the bar."""
        del loss
        self.advance_to(solver.iteration)

    def on_display(self, solver: Solver, iteration: int) -> None:
        """Show the smoothed loss."""
        del iteration
        self.show(loss=solver.smoothed_loss)

    def on_test(self, solver: Solver, results: Sequence[dict[str, float]]) -> None:
        """Print what the test nets gave above the bar."""
        for number, outputs in enumerate(results):
            text = "  ".join(f"{name} {value:.4f}" for name, value in outputs.items())
            self._bar.write(f"iteration {solver.iteration}: test net #{number}  {text}")
            if "accuracy" in outputs:
                self.show(accuracy=outputs["accuracy"])

    def advance_to(self, iteration: int) -> None:
        """Move the bar to `iteration`; never back."""
        self._bar.update(max(0, iteration - self._bar.n))

    def show(self, **values: float) -> None:
        """Show values behind the bar."""
        self._values.update({name: f"{value:.4g}" for name, value in values.items()})
        speed = self._bar.format_dict["rate"]
        if speed and self._batch:
            self._values["images/s"] = f"{speed * self._batch:.0f}"
        self._bar.set_postfix(self._values, refresh=False)

    def show_exchange(self, record: Mapping[str, Any]) -> None:
        """Show what an exchange tells of the workers: see `Observer.on_exchange`."""
        self._staleness[record["rank"]] = record["staleness"]
        self._show_silent(self._silent - {record["rank"]})
        if any(self._staleness.values()):
            self.show(staleness=sum(self._staleness.values()) / len(self._staleness))

    def show_event(self, what: str, values: Mapping[str, Any]) -> None:
        """Show that a worker is not heard of, or gone: see `Observer.on_event`."""
        if what in ("straggler", "dropped"):
            self._show_silent(self._silent | {values["rank"]})

    def _show_silent(self, silent: set[int]) -> None:
        if silent != self._silent:
            self._silent = silent
            self._values["workers"] = f"{self._workers - len(silent)}/{self._workers}"
            self.show()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
