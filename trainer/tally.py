"""Adding up what workers report: for the log, in Caffe's lines, for observers, for the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

from trainer.plan import DistributedPlan

logger = logging.getLogger(__name__)

_MEASURED = (
    *("loss", "lr", "compute_s", "exchange_s"),
    *("sent_bytes", "received_bytes", "staleness"),
)


class Observer(Protocol):
    """Follows a run; called in the thread that runs it. Tests come by `solver.callbacks`."""

    def on_progress(self, iteration: int, loss: float) -> None:
        """Hear that the run has reached `iteration`, and a worker's loss there."""

    def on_exchange(self, record: Mapping[str, Any]) -> None:
        """Hear of a worker's exchange.

        Args:
            record: rank, worker_iteration; iteration and samples of the run if all workers were
                as far as this one; loss, its mean since its last exchange, None if it had nothing
                left to do; center_loss, of the average or the centre in the last test, None before
                the first; lr; compute_s, exchange_s; sent_bytes, received_bytes; staleness.
        """

    def on_event(self, what: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Hear that something happened to the run.

        Args:
            what: `begin`: the first worker is up; told once, even if all are started again; `lost`:
                workers were lost, and what they did not save with them; `straggler`: a worker is
                silent; `dropped`: others do the rest of its share; `end`: all is done.
            iteration: Of the run.
            values: What else is known: rank, host, silent_s; at the end a row for each worker.
        """


@dataclass
class WorkerTotals:
    """What a worker did in a run.

    Attributes:
        rank: Which.
        host: Where it ran last.
        attempts: How often it was started.
        iterations: That it has behind it.
        exchanges: That it made.
        compute_s, exchange_s: Seconds that it computed, and that it waited for exchanges.
        sent_bytes, received_bytes: Tensors that it exchanged.
        staleness: Sum over all exchanges.
        max_staleness: The greatest.
        loss: The last that it reported; None if it has not reported any.
    """

    rank: int
    iterations: int
    host: str = ""
    attempts: int = 0
    exchanges: int = 0
    compute_s: float = 0.0
    exchange_s: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0
    staleness: int = 0
    max_staleness: int = 0
    loss: float | None = None

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in an exchange."""
        self.exchanges += 1
        for name in ("compute_s", "exchange_s", "sent_bytes", "received_bytes", "staleness"):
            setattr(self, name, getattr(self, name) + record[name])
        self.max_staleness = max(self.max_staleness, record["staleness"])


@final
class Tally:
    """Where a run is, by its workers' latest words.

    Args:
        plan: The run.
        observer: Hears of every record.
        display: Iterations of the run between two lines of the log; 0 for none.

    Attributes:
        iteration: Iteration of the run.
        workers: What each has done.
        center_loss: Of the average or the centre in the last test; None before the first.
    """

    def __init__(self, plan: DistributedPlan, observer: Observer, display: int) -> None:
        self._plan, self._observer, self._display = plan, observer, display
        self.workers = [WorkerTotals(rank, 0) for rank in range(plan.num_workers)]
        self.center_loss: float | None = None
        self._batch = 0
        self._losses: list[float] = []
        ranks = range(plan.num_workers)
        self.start([plan.share(rank, plan.start_iteration) for rank in ranks])

    def start(self, iterations: Sequence[int]) -> None:
        """Count from here: what each worker has behind it."""
        for worker, iteration in zip(self.workers, iterations, strict=True):
            worker.iterations = iteration
        self.iteration = self._plan.progress(sum(iterations))
        self._lap = (self.iteration, time.monotonic())

    @property
    def samples(self) -> int:
        """Images that all workers together have seen, those before a resumption included."""
        return sum(worker.iterations for worker in self.workers) * self._batch

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a worker's record: one of `trainer.worker`."""
        if record["kind"] == "log":
            logger.log(record["level"], "[worker %d] %s", record["rank"], record["message"])
            return
        worker, loss, self._batch = self.workers[record["rank"]], record["loss"], record["batch"]
        worker.iterations = record["iteration"]
        before = self.iteration
        self.iteration = self._plan.progress(sum(each.iterations for each in self.workers))
        if loss is not None:
            worker.loss = loss
            self._losses.append(loss)
            self._observer.on_progress(self.iteration, loss)
        if record["kind"] == "exchange":
            worker.add(record)
            self._observer.on_exchange(self._measurements(record))
            self._log(before, record["lr"])

    def tell(self, what: str, **values: Any) -> None:
        """Tell the observer of an event."""
        self._observer.on_event(what, self.iteration, values)

    def _measurements(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an observer hears of an exchange."""
        plan, worker_iteration = self._plan, record["iteration"]
        iteration = min(worker_iteration * plan.stride, plan.max_iter)
        return {
            "rank": record["rank"],
            "iteration": iteration,
            "samples": iteration * record["batch"] * plan.num_workers // plan.stride,
            "worker_iteration": worker_iteration,
            "center_loss": self.center_loss,
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
