"""What is remembered of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from trainer.tally import WorkerTotals


@dataclass(frozen=True)
class TrainingSummary:
    """How a fit went.

    Attributes:
        iterations: Batches of all workers together.
        samples: Rows that they have seen, repetitions included.
        seconds: From the start of the workers to their end.
        loss_history: Iteration and loss, each the mean of a worker since its last exchange.
        initial_validation: Means over the rows held out before training, by the blob of the TEST
            net; {} if there are no such rows, or the solver has `test_initialization: false`.
        validation: The same after training.
        workers: What each worker did: starts, seconds, bytes, staleness.
    """

    iterations: int
    samples: int
    seconds: float
    loss_history: tuple[tuple[int, float], ...]
    initial_validation: Mapping[str, float]
    validation: Mapping[str, float]
    workers: tuple[WorkerTotals, ...] = ()


@final
@dataclass(frozen=True)
class LossHistory:
    """An observer of a run that keeps the losses at exchanges."""

    losses: list[tuple[int, float]] = field(default_factory=list)

    def on_progress(self, iteration: int, loss: float) -> None:
        """Hear of a single iteration, which is not kept."""

    def on_exchange(self, record: Mapping[str, Any]) -> None:
        """Keep the loss."""
        if record["loss"] is not None:
            self.losses.append((record["iteration"], record["loss"]))

    def on_event(self, what: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Hear of what is in the log."""
