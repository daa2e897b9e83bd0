"""Where the workers of a run and its driver meet: measurements in, wishes out."""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import Control, Deposit, Place, Pull, Record, Start
from trainer.parameter_server.books import Push
from trainer.parameter_server.center import Center
from trainer.parameter_server.center_file import CenterFile
from trainer.parameter_server.meeting import Meeting
from trainer.parameter_server.roster import Roster
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


def _no_deposit(rank: int) -> Deposit | None:
    del rank
    return None


@dataclass(frozen=True)
class Given:
    """What a run begins with.

    Attributes:
        parameters: Shape (P,).
        history: The solver's histories, shape (P,) each.
        layout: Which parameters are weights.
        iterations: Iterations that each worker has behind it.
        center_state: What `Center.state` has given; empty for a new run.
        deposit_of: Gives what the worker of a rank handed over for the checkpoint that the run goes
            on from; None where there is nothing.
    """

    parameters: Tensor
    history: Sequence[Tensor]
    layout: Layout
    iterations: Sequence[int]
    center_state: Sequence[Tensor] = ()
    deposit_of: Callable[[int], Deposit | None] = _no_deposit


class Depository(Protocol):
    """Takes what workers of a synchronous run hand over for checkpoints."""

    @property
    def wants_deposits(self) -> bool:
        """Whether a checkpoint is due."""

    def deposit(
        self, rank: int, iteration: int, values: Mapping[str, Any], chunks: Iterator[Tensor]
    ) -> None:
        """Take a worker's state, whose tensors come in parts; see `DriverLink.deposit`."""


@final
class Desk:
    """Serves the workers' calls, from many threads, and the driver's, from one.

    Args:
        plan: The run.
        milestones: When the driver wants the state.
        given: What the run begins with.
        settings: What the strategy asks of the centre.
        depository: Where checkpoints go; None for nowhere.
        file: Where the centre is, if other processes map it.

    Attributes:
        settings: See above.
        center: The centre; in a synchronous run only where workers begin.
        meeting: Where workers average, if not among themselves.
        roster: Who the workers are.
        home: Host of the driver.
        file: See above.
    """

    def __init__(
        self,
        plan: DistributedPlan,
        milestones: Milestones,
        given: Given,
        settings: CenterSettings,
        depository: Depository | None = None,
        file: CenterFile | None = None,
    ) -> None:
        self._plan, self._when, self._given = plan, milestones, given
        self.settings = settings
        self._depository = depository
        self.home, self.file = socket.gethostname(), file
        self.center = Center(
            given.parameters,
            given.layout,
            given.iterations,
            settings,
            file=file,
            state=given.center_state,
            wait_s=plan.wait_timeout_s,
            watch=self._watch,
        )
        self.meeting = Meeting(plan.num_workers, plan.wait_timeout_s)
        self.roster = Roster(plan.num_workers, plan.task_attempts)
        self._changed = threading.Condition()
        self._records: deque[dict[str, Any]] = deque()
        self._milestones: deque[Milestone] = deque()
        self._stop = self._publish = self._is_closed = False

    @property
    def slots(self) -> int:
        """Number of histories."""
        return len(self._given.history)

    # The workers' side.

    def start(self, rank: int, place: Place) -> Start:
        """Register a worker; see `DriverLink.start`."""
        attempt, iteration = self.center.register(rank)
        self.roster.register(rank, place, iteration)
        deposit = self._given.deposit_of(rank) if attempt == 1 else None
        if deposit is not None:
            kept = deposit.history, deposit.extra, deposit.values
            return Start(attempt, iteration, deposit.parameters, *kept)
        history = self._given.history if attempt == 1 else ()
        return Start(attempt, iteration, self.center.copy(), history)

    def report(self, rank: int, attempt: int, records: Sequence[Record]) -> Control:
        """Take measurements; see `DriverLink.report`."""
        self.center.check_attempt(rank, attempt)
        self.roster.hear(rank)
        with self._changed:
            self._records.extend({**record, "rank": rank} for record in records)
            is_first = rank == 0
            wants_deposits = is_first and not self._milestones and self._wants_deposits
            extra = self.roster.members[rank].extra
            return Control(self._stop, self._publish and is_first, wants_deposits, extra)

    @property
    def _wants_deposits(self) -> bool:
        return self._depository is not None and self._depository.wants_deposits

    def deposit(
        self,
        rank: int,
        attempt: int,
        iteration: int,
        values: Mapping[str, Any],
        chunks: Iterator[Tensor],
    ) -> None:
        """Take a worker's state; see `DriverLink.deposit`. The tensors come in flat parts."""
        self.center.check_attempt(rank, attempt)
        if self._depository is None:
            raise TrainerError("this run makes no checkpoints: nothing is to be deposited")
        self._depository.deposit(rank, iteration, values, chunks)

    def finish(self, rank: int, attempt: int) -> None:
        """Note that a worker has done its work."""
        self.center.leave(rank, attempt)
        self.roster.finish(rank)

    def publish(
        self, rank: int, attempt: int, iteration: int, state: Tensor, history: Sequence[Tensor]
    ) -> None:
        """Take the state of a synchronous run."""
        self.center.check_attempt(rank, attempt)
        with self._changed:
            self._publish = False
            self._milestones.append(Milestone(iteration, state, history))
            self._changed.notify_all()

    def exchange(self, push: Push, sent: Tensor) -> Pull:
        """Move the centre; see `Center.exchange`. Waits while the driver has enough to do."""
        pull = self.center.exchange(push, sent)
        self.wait_for_driver(_WAITING_MILESTONES)
        return pull

    def fail(self, rank: int, attempt: int, message: str, details: str, lost_peer: bool) -> None:
        """Note why a worker ends; see `DriverLink.fail`."""
        self.center.check_attempt(rank, attempt)
        self.roster.fail(rank, message, is_lost_peer=lost_peer)
        logger.debug("Worker %d failed:\n%s", rank, details)

    def _watch(self, before: int, after: int) -> None:
        progress = self._plan.progress(after)
        if self._when.is_any(self._plan.progress(before), progress):
            with self._changed:
                self._milestones.append(Milestone(progress, self.center.copy()))
                self._changed.notify_all()

    def wait_for_driver(self, waiting: int = 0) -> None:
        """Hold a worker back while more than so many milestones wait: each takes memory."""
        with self._changed:
            is_in_time = self._changed.wait_for(
                lambda: self._is_closed or len(self._milestones) <= waiting,
                self._plan.wait_timeout_s,
            )
        if not is_in_time:
            raise TrainerError(
                f"the driver has been testing for more than {self._plan.wait_timeout_s:g} s: "
                "test less often (test_interval, test_iter) or allow a longer wait"
            )

    # The driver's side.

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

    def drop(self, rank: int) -> None:
        """Do without a worker that does not come back: the others do what it leaves undone."""
        done = self.center.iterations[rank]
        share = self._plan.share(rank, self._plan.max_iter) + self.roster.members[rank].extra
        heirs = self.roster.drop(rank, share - done)
        self.center.withdraw(rank)
        logger.warning(
            "%s is dropped at its iteration %d: %d iterations are left to %d others",
            *(self.roster.name(rank), done, share - done, heirs),
        )

    def close(self) -> None:
        """Let nobody wait any more."""
        self.center.close()
        self.meeting.close()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
