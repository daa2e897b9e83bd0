"""Adding up what workers report: for the log, in Caffe's lines, and for an observer."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Protocol, final

from trainer.plan import DistributedPlan

logger = logging.getLogger(__name__)

_MEASURED = ("loss", "lr", "compute_s", "exchange_s", "staleness")


class Observer(Protocol):
    """Follows a run; called in the thread that runs it. Tests come by `solver.callbacks`."""

    def on_progress(self, iteration: int, loss: float) -> None:
        """Hear that the run has reached `iteration`, and a worker's loss there."""

    def on_exchange(self, record: Mapping[str, Any]) -> None:
        """Hear of a worker's exchange.

        Args:
            record: rank, worker_iteration; iteration and samples of the run if all workers were
                as far as this one; loss, its mean since its last exchange, None if it had nothing
                left to do; lr; compute_s, exchange_s; staleness.
        """


@final
class Tally:
    """Where a run is, by its workers' latest words.

    Args:
        plan: The run.
        observer: Hears of every record.
        display: Iterations of the run between two lines of the log; 0 for none.

    Attributes:
        iteration: Iteration of the run.
    """

    def __init__(self, plan: DistributedPlan, observer: Observer, display: int) -> None:
        self._plan, self._observer, self._display = plan, observer, display
        self.iteration = plan.start_iteration
        self._iterations = {
            rank: plan.share(rank, plan.start_iteration) for rank in range(plan.num_workers)
        }
        self._batch = 0
        self._losses: list[float] = []
        self._lap = (self.iteration, time.monotonic())

    @property
    def samples(self) -> int:
        """Images that all workers together have seen, those before a resumption included."""
        return sum(self._iterations.values()) * self._batch

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a worker's record: one of `trainer.worker`."""
        loss, self._batch = record["loss"], record["batch"]
        self._iterations[record["rank"]] = record["iteration"]
        before, self.iteration = self.iteration, self._plan.progress(sum(self._iterations.values()))
        if loss is not None:
            self._losses.append(loss)
            self._observer.on_progress(self.iteration, loss)
        if record["kind"] == "exchange":
            self._observer.on_exchange(self._measurements(record))
            self._log(before, record["lr"])

    def _measurements(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an observer hears of an exchange."""
        plan, worker_iteration = self._plan, record["iteration"]
        iteration = min(worker_iteration * plan.stride, plan.max_iter)
        return {
            "rank": record["rank"],
            "iteration": iteration,
            "samples": iteration * record["batch"] * plan.num_workers // plan.stride,
            "worker_iteration": worker_iteration,
            **{name: record[name] for name in _MEASURED},
        }

    def _log(self, before: int, rate: float) -> None:
        """Write Caffe's two lines when the run passes a multiple of `display`."""
        is_due = self._display and self.iteration // self._display > before // self._display
        if not is_due or not self._losses:
            return
        since, start = self._lap
        seconds, count = time.monotonic() - start, self.iteration - since
        logger.info(
            "Iteration %d (%g iter/s, %gs/%d iters), loss = %g",
            self.iteration,
            count / seconds if seconds else 0.0,
            seconds,
            count,
            sum(self._losses) / len(self._losses),
        )
        logger.info("Iteration %d, lr = %g", self.iteration, rate)
        self._losses, self._lap = [], (self.iteration, time.monotonic())
