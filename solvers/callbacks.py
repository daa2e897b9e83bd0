"""Where others look into or steer a solver's loop."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from solvers.solver import Solver


class Action(enum.Enum):
    """What a poll asks of the solver. Source: caffe/include/caffe/solver.hpp, SolverAction."""

    NONE = "none"
    STOP = "stop"
    SNAPSHOT = "snapshot"


class Callback:
    """Hooks of the loop; override the ones you need.

    `on_start` and `on_gradients_ready` are Caffe's; the others report.
    """

    def on_start(self, solver: Solver) -> None:
        """Run before the forward pass of an iteration."""

    def on_gradients_ready(self, solver: Solver) -> None:
        """Run after the last backward pass of an iteration, before the update."""

    def on_iteration(self, solver: Solver, loss: float) -> None:
        """Run after the update, with the iteration's loss; `solver.iteration` counts it."""

    def on_display(self, solver: Solver, iteration: int) -> None:
        """Run when Caffe would print the loss of `iteration`: see `solver.smoothed_loss`."""

    def on_test(self, solver: Solver, results: Sequence[dict[str, float]]) -> None:
        """Run after all test nets, with the mean of every output of each."""

    def on_snapshot(self, solver: Solver, path: Path) -> None:
        """Run when the snapshot whose state file is `path` is complete."""
