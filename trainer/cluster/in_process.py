"""Workers that take turns in this process: deterministic, and the oracle for real clusters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from types import TracebackType
from typing import Any, Self, final

import torch
from torch import Tensor

from trainer.caffe_log import WORKER_THREAD
from trainer.cluster.base import Cluster, Work
from trainer.errors import TrainerError
from trainer.links import Control, Move, PeerLostError, Place, Pull, Record, Start, Traffic
from trainer.parameter_server.books import Push
from trainer.parameter_server.desk import Desk
from trainer.strategies.arithmetic import mean_
from trainer.task import WorkerTask


@final
class InProcessCluster(Cluster):
    """Runs each rank in a thread of its own, one at a time, in order of rank.

    A rank has the turn until it has to do with others: an averaging or an exchange with the centre.
    So a run with a fixed seed gives the same bits every time.

    Args:
        threads: Threads that PyTorch uses meanwhile.
    """

    may_lose_workers = False

    def __init__(self, threads: int) -> None:
        self._threads = self._threads_before = threads
        self._turns = _Turns(0)

    def __enter__(self) -> Self:
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        torch.set_num_threads(self._threads_before)

    def run(self, work: Work, tasks: Sequence[WorkerTask], desk: Desk, *, in_group: bool) -> None:
        """Run the tasks; see `Cluster.run`."""
        self._turns = turns = _Turns(len(tasks))
        meeting = _Meeting(turns, len(tasks))

        def play(task: WorkerTask) -> None:
            link = _TurnLink(desk, task.rank, turns)
            group = nullcontext(_TurnGroup(task.rank, meeting) if in_group else None)
            turns.play(task.rank, lambda: work(task, link, group))

        threads = [
            threading.Thread(
                target=play, args=(task,), name=f"{WORKER_THREAD} {task.rank}", daemon=True
            )
            for task in tasks
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if turns.failure is not None:
            raise turns.failure

    def end_worker(self, rank: int) -> None:
        """Do nothing: a thread cannot be ended, and whoever has the turn runs."""

    def cancel(self) -> None:
        """End the run at the next change of turns."""
        self._turns.fail(TrainerError("the run was cancelled"))


@final
class _Turns:
    """Whose turn it is. A wait has no deadline: whoever has the turn runs in this process."""

    def __init__(self, ranks: int) -> None:
        self._playing = list(range(ranks))
        self._position = 0
        self._changed = threading.Condition()
        self.failure: TrainerError | None = None

    def play(self, rank: int, work: Callable[[], None]) -> None:
        """Run a rank from its first turn to its end."""
        try:
            self._wait(rank)
            work()
        except Exception as error:  # whatever it is, the caller of `run` has to see it
            failure = TrainerError(f"worker {rank}: {error}")
            failure.__cause__ = error
            self.fail(failure)
        with self._changed:
            self._playing.remove(rank)
            self._position %= max(len(self._playing), 1)
            self._changed.notify_all()

    def pass_on(self, rank: int) -> None:
        """Let the others have their turns; return when it is this rank's again."""
        with self._changed:
            self._position = (self._position + 1) % len(self._playing)
            self._changed.notify_all()
        self._wait(rank)

    def fail(self, error: TrainerError) -> None:
        """End all ranks; the first reason counts."""
        with self._changed:
            self.failure = self.failure or error
            self._changed.notify_all()

    def _wait(self, rank: int) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self.failure is not None or self._playing[self._position] == rank
            )
            if self.failure is not None:
                raise PeerLostError(str(self.failure))


@final
class _Meeting:
    """Averages a tensor of every rank when the turn comes round to the first of them again."""

    def __init__(self, turns: _Turns, size: int) -> None:
        self._turns, self.size = turns, size
        self._deposits: list[Tensor] = []
        self._number = 0

    def mean_(self, rank: int, tensor: Tensor) -> None:
        number = self._number
        self._deposits.append(tensor)
        self._turns.pass_on(rank)
        if self._number != number:
            return
        if len(self._deposits) != self.size:
            raise PeerLostError("another worker has left before the averaging")
        mean_(self._deposits)
        self._deposits, self._number = [], number + 1


@final
class _TurnGroup:
    """One rank's `Group`."""

    def __init__(self, rank: int, meeting: _Meeting) -> None:
        self._rank, self._meeting = rank, meeting
        self.size, self.traffic = meeting.size, Traffic()

    def mean_(self, tensor: Tensor) -> None:
        self._meeting.mean_(self._rank, tensor)
        self.traffic += Traffic(tensor.nbytes, tensor.nbytes)


@final
class _TurnLink:
    """One rank's `DriverLink`: straight to the desk.

    In turns nobody gets ahead, so a push never has to wait for a worker that is behind.
    """

    def __init__(self, desk: Desk, rank: int, turns: _Turns) -> None:
        self._desk, self._rank, self._turns = desk, rank, turns
        self._attempt = self._sequence = 0
        self.traffic = Traffic()

    def start(self, place: Place) -> Start:
        start = self._desk.start(self._rank, place)
        self._attempt = start.attempt
        self._turns.pass_on(self._rank)  # all begin before the first one exchanges
        return start

    def exchange(
        self, sent: Tensor, move: Move, iteration: int, *, is_answered: bool = True
    ) -> Pull:
        self._sequence += 1
        push = Push(self._rank, self._attempt, self._sequence, iteration, move, is_answered)
        pull = self._desk.exchange(push, sent.cpu().float())
        self.traffic += Traffic(sent.nbytes, pull.center.numel() * sent.itemsize)
        self._turns.pass_on(self._rank)
        return Pull(pull.center.to(sent.device), pull.staleness)

    def fetch(self) -> Tensor:
        center = self._desk.center.fetch(self._rank, self._attempt)
        self.traffic += Traffic(0, center.nbytes)
        self._turns.pass_on(self._rank)
        return center

    def shared(self) -> Tensor:
        return self._desk.center.memory

    def publish(self, iteration: int, parameters: Tensor, history: Sequence[Tensor]) -> None:
        self._desk.wait_for_driver()
        copies = [tensor.to("cpu", copy=True) for tensor in (parameters, *history)]
        self._desk.publish(self._rank, self._attempt, iteration, copies[0], copies[1:])

    def deposit(self, iteration: int, values: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
        self._desk.deposit(self._rank, self._attempt, iteration, values, iter(tensors))

    def meet(self, tensor: Tensor) -> None:
        raise TrainerError("workers in one process average in their turns")

    def report(self, records: Sequence[Record]) -> Control:
        return self._desk.report(self._rank, self._attempt, records)

    def finish(self) -> None:
        self._desk.finish(self._rank, self._attempt)

    def fail(self, message: str, details: str, *, is_lost_peer: bool) -> None:
        self._desk.fail(self._rank, self._attempt, message, details, is_lost_peer)
