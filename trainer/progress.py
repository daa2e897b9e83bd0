"""The progress bar that a terminal shows instead of log lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Never

from tqdm import tqdm

from solvers import Callback, Solver


class ProgressBar(Callback):
    """Iterations done, loss, rate and the last accuracy, on standard error.

    Args:
        total: Iterations of the whole run.
        done: Iterations that a snapshot had completed.
    """

    def __init__(self, total: int, done: int) -> None:
        self._bar: tqdm[Never] = tqdm(total=total, initial=done, unit="it", dynamic_ncols=True)
        self._values: dict[str, str] = {}

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
        self._bar.set_postfix(self._values, refresh=False)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
