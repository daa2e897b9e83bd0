"""Where the workers of a run and its driver meet: measurements in, wishes out."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import Control, Pull, Record, Start
from trainer.parameter_server.center import Center, Push
from trainer.parameter_server.shared import map_shared
from trainer.plan import DistributedPlan, Milestones
from trainer.strategies.arithmetic import Layout
from trainer.strategies.base import CenterSettings

logger = logging.getLogger(__name__)

# Copies of the model that may wait for the driver, which tests slower than workers train.
_WAITING_MILESTONES = 1


@dataclass(frozen=True)
class Milestone:
    """The state of a run at an iteration.

    Attributes:
        iteration: Iteration of the run.
        parameters: The average, or the centre; shape (P,).
        history: Rank 0's histories; none in an asynchronous run, whose centre has no momentum.
    """

    iteration: int
    parameters: Tensor
    history: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Failure:
    """Why a worker ended.

    Attributes:
        rank: Which worker.
        host: Where it ran.
        message: Its own message.
        details: With the traceback.
        is_lost_peer: It ended only because another one did.
    """

    rank: int
    host: str
    message: str
    details: str
    is_lost_peer: bool


@final
class Desk:
    """Serves the workers' calls, from many threads, and the driver's, from one.

    Args:
        plan: The run.
        milestones: When the driver wants the state.
        parameters: The start, shape (P,).
        history: Histories to start with.
        layout: Which parameters are weights.
        settings: What the strategy asks of the centre.
        shared: File of the centre, if workers share it.

    Attributes:
        center: The centre; in a synchronous run only where workers begin.
        home: Host of the driver.
        shared: See above.
    """

    def __init__(
        self,
        plan: DistributedPlan,
        milestones: Milestones,
        parameters: Tensor,
        history: Sequence[Tensor],
        layout: Layout,
        settings: CenterSettings,
        shared: Path | None = None,
    ) -> None:
        self._plan, self._when = plan, milestones
        self.home, self.shared = socket.gethostname(), shared
        ranks = range(plan.num_workers)
        start = [plan.share(rank, plan.start_iteration) for rank in ranks]
        self.center = Center(
            parameters,
            layout,
            start,
            settings,
            memory=map_shared(shared, parameters.numel(), self.home) if shared else None,
            wait_s=plan.wait_timeout_s,
            watch=self._watch,
        )
        self._history = [slot.detach().cpu().clone() for slot in history]
        self._changed = threading.Condition()
        self._records: deque[dict[str, Any]] = deque()
        self._milestones: deque[Milestone] = deque()
        self._failures: list[Failure] = []
        self._hosts = dict.fromkeys(ranks, "a host not known yet")
        self._heard = dict.fromkeys(ranks, time.monotonic())
        self._stop = self._publish = self._is_closed = False

    @property
    def slots(self) -> int:
        """Number of histories."""
        return len(self._history)

    # The workers' side.

    def start(self, rank: int, host: str) -> Start:
        """Register a worker; see `DriverLink.start`."""
        attempt, iteration = self.center.register(rank)
        with self._changed:
            known = [failure.message for failure in self._failures if failure.rank == rank]
            self._failures = [failure for failure in self._failures if failure.rank != rank]
            self._hosts[rank] = host
            self._heard[rank] = time.monotonic()
        if attempt > 1:
            reason = known[0] if known else "killed, or out of memory?"
            logger.warning(
                "Worker %d was lost (%s); attempt %d goes on from its iteration %d on %s",
                rank,
                reason,
                attempt,
                iteration,
                host,
            )
        history = self._history if attempt == 1 else []
        return Start(attempt, iteration, self.center.copy(), history)

    def report(self, rank: int, attempt: int, records: Sequence[Record]) -> Control:
        """Take measurements; see `DriverLink.report`."""
        self.center.check_attempt(rank, attempt)
        with self._changed:
            self._heard[rank] = time.monotonic()
            self._records.extend({**record, "rank": rank} for record in records)
            return Control(self._stop, self._publish and rank == 0)

    def finish(self, rank: int, attempt: int) -> None:
        """Note that a worker has done its work."""
        self.center.leave(rank, attempt)
        with self._changed:
            self._heard.pop(rank, None)

    def publish(
        self, rank: int, attempt: int, iteration: int, state: Tensor, history: Sequence[Tensor]
    ) -> None:
        """Take the state of a synchronous run; waits while the driver has enough to do."""
        self.center.check_attempt(rank, attempt)
        with self._changed:
            self._publish = False
            self._milestones.append(Milestone(iteration, state, history))
            self._changed.notify_all()
        self._wait_for_driver()

    def exchange(self, push: Push, sent: Tensor) -> Pull:
        """Move the centre; see `Center.exchange`. Waits while the driver has enough to do."""
        pull = self.center.exchange(push, sent)
        self._wait_for_driver()
        return pull

    def fail(self, rank: int, attempt: int, message: str, details: str, lost_peer: bool) -> None:
        """Note why a worker ends; see `DriverLink.fail`."""
        self.center.check_attempt(rank, attempt)
        with self._changed:
            host = self._hosts[rank]
            self._failures.append(Failure(rank, host, message, details, lost_peer))
        logger.debug("Worker %d on %s failed:\n%s", rank, host, details)

    def _watch(self, before: int, after: int, center: Tensor) -> None:
        progress = self._plan.progress(after)
        if self._when.is_any(self._plan.progress(before), progress):
            with self._changed:
                self._milestones.append(Milestone(progress, center.clone()))
                self._changed.notify_all()

    def _wait_for_driver(self) -> None:
        """Hold a worker back while more milestones wait than memory should hold."""
        with self._changed:
            is_in_time = self._changed.wait_for(
                lambda: self._is_closed or len(self._milestones) <= _WAITING_MILESTONES,
                self._plan.wait_timeout_s,
            )
        if not is_in_time:
            raise TrainerError(
                f"the driver has been testing for more than {self._plan.wait_timeout_s:g} s: "
                "test less often (test_interval, test_iter) or allow a longer wait"
            )

    # The driver's side.

    def begin(self) -> None:
        """Count silence from now."""
        with self._changed:
            self._heard = dict.fromkeys(self._heard, time.monotonic())

    def request_stop(self) -> None:
        """Have every worker end after its current iteration."""
        with self._changed:
            self._stop = True

    def request_publication(self) -> None:
        """Have rank 0 of a synchronous run publish after its next exchange."""
        with self._changed:
            self._publish = True

    def take_records(self) -> list[dict[str, Any]]:
        """Return the measurements that came in since the last call, with the rank in each."""
        with self._changed:
            records = list(self._records)
            self._records.clear()
            return records

    def next_milestone(self, timeout_s: float) -> Milestone | None:
        """Return the oldest milestone not yet taken; None if none comes in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._milestones, timeout_s)
            milestone = self._milestones.popleft() if self._milestones else None
            self._changed.notify_all()
            return milestone

    def silent(self, seconds: float) -> list[str]:
        """Return the unfinished workers not heard of for `seconds`, each with its host."""
        now = time.monotonic()
        with self._changed:
            return [
                f"worker {rank} on {self._hosts[rank]}"
                for rank, heard in self._heard.items()
                if now - heard > seconds
            ]

    def failure(self) -> str | None:
        """Return the message of the worker that ended the run, if one said why.

        If all who spoke had only lost their peers, it was a silent one.
        """
        with self._changed:
            for failure in self._failures:
                if not failure.is_lost_peer:
                    return f"worker {failure.rank} on {failure.host}: {failure.message}"
            if not self._failures:
                return None
            told = {failure.rank for failure in self._failures}
            lost = [
                f"worker {rank} on {self._hosts[rank]}" for rank in self._heard if rank not in told
            ]
        if not lost:
            first = self._failures[0]
            return f"worker {first.rank} on {first.host}: {first.message}"
        return f"{', '.join(lost)} was lost: killed, or out of memory? The others noticed it"

    def close(self) -> None:
        """Let nobody wait any more."""
        self.center.close()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
