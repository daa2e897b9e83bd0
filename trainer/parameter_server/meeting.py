"""Where the workers of a synchronous run average through the driver."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import PeerLostError


@dataclass(eq=False)
class _Turn:
    """The right of a worker's call to bring its tensor."""

    rank: int


@dataclass(eq=False)
class _Era:
    """Meetings from one beginning to the next: the number of the last that is over, and its mean.

    Of the meeting under way: the sum, who has called, whose tensor is in the sum (by which
    attempt), and whose turn it is to bring one.
    """

    number: int = 0
    mean: Tensor | None = None
    sum: Tensor | None = None
    called: set[int] = field(default_factory=set)
    came: dict[int, int] = field(default_factory=dict)
    turn: _Turn | None = None


@final
class Meeting:
    """Averages a tensor of every worker, again and again; many threads may call.

    Memory, whatever the number of workers: one running sum, one tensor that is being brought, and
    the last mean until every worker has shown by its next call that it has it. The sum is in the
    order of arrival, so that for three or more workers it may differ from that in another order in
    the last bit; for two it is the same.

    Args:
        size: Number of workers K.
        wait_s: Longest wait of a worker for the others.

    Source: Moritz et al. 2016 (SparkNet), section 2, algorithm 1, where the driver averages.
    """

    def __init__(self, size: int, wait_s: float) -> None:
        self._size, self._wait_s = size, wait_s
        self._changed = threading.Condition()
        self._is_closed = False
        self._era = _Era()

    def meet(self, rank: int, attempt: int, number: int, bring: Callable[[], Tensor]) -> Tensor:
        """Bring a tensor, and wait for the mean of all.

        A call that is repeated is answered with the same mean, and its tensor is counted once.

        Args:
            rank: Which worker.
            attempt: Which start of it.
            number: Of the meeting since the beginning or the last `reset`, from 1.
            bring: Returns the tensor, which is changed here. It is called when there is memory for
                it, and not at all if the tensor is here already.

        Returns:
            The mean, which is not to be changed.

        Raises:
            PeerLostError: Others did not come in time, or the workers begin anew.
            TrainerError: The call is of another meeting, or the tensor unlike those of the others.
        """
        deadline = time.monotonic() + self._wait_s
        with self._changed:
            era = self._era
            if number == era.number and era.mean is not None:
                return era.mean
            self._enter(era, rank, attempt, number)
        try:
            self._have_brought(era, rank, attempt, bring, deadline)
            with self._changed:
                self._wait(era, deadline, lambda: era.number >= number)
                if era.number != number or era.mean is None:
                    raise TrainerError(f"worker {rank}: meeting {number} is over, a later one on")
                return era.mean
        except BaseException:
            with self._changed:
                era.called.discard(rank)  # it does not wait for the others, but they for it
            raise

    def reset(self) -> None:
        """Send away all who wait; the workers begin anew, with meeting 1."""
        with self._changed:
            self._era = _Era()
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _enter(self, era: _Era, rank: int, attempt: int, number: int) -> None:
        self._check(era)
        if number != era.number + 1:
            raise TrainerError(
                f"worker {rank}: expected a call of meeting {era.number + 1}; received {number}"
            )
        if era.came.get(rank, attempt) != attempt:
            self.reset()
            raise PeerLostError(f"worker {rank} was replaced while the others met: begin anew")
        era.called.add(rank)
        if len(era.called) == self._size:
            era.mean = None  # nobody asks for it again

    def _have_brought(
        self, era: _Era, rank: int, attempt: int, bring: Callable[[], Tensor], deadline: float
    ) -> None:
        """Wait for the turn to bring a tensor, and add what is brought.

        A worker whose call has broken off takes the turn over from that one.
        """
        with self._changed:
            self._wait(era, deadline, lambda: era.turn is None or era.turn.rank == rank)
            if rank in era.came:
                return
            era.turn = turn = _Turn(rank)
        try:
            self._add(era, turn, attempt, bring())
        finally:
            with self._changed:
                if era.turn is turn:
                    era.turn = None
                    self._changed.notify_all()

    def _add(self, era: _Era, turn: _Turn, attempt: int, tensor: Tensor) -> None:
        with self._changed:
            self._check(era)
            if era.turn is not turn:
                raise TrainerError(f"worker {turn.rank}: a later call has taken the place of this")
            if era.sum is None:
                era.sum = tensor
            elif (tensor.shape, tensor.dtype) == (era.sum.shape, era.sum.dtype):
                era.sum.add_(tensor)
            else:
                raise TrainerError(
                    f"worker {turn.rank}: expected {era.sum.numel()} values of {era.sum.dtype} as "
                    f"from the others; received {tensor.numel()} of {tensor.dtype}: all workers "
                    "must train the same net"
                )
            era.came[turn.rank] = attempt
            if len(era.came) == self._size:
                era.mean, era.sum = era.sum.div_(self._size), None
                era.number += 1
                era.called.clear()
                era.came.clear()
                self._changed.notify_all()

    def _wait(self, era: _Era, deadline: float, is_free: Callable[[], bool]) -> None:
        """Wait, without the lock, for something to happen in an era.

        Raises:
            PeerLostError: It did not, or the era is over.
        """

        def is_over() -> bool:
            return self._is_closed or era is not self._era

        left_s = max(0.0, deadline - time.monotonic())
        if not self._changed.wait_for(lambda: is_over() or is_free(), left_s):
            names = " and ".join(f"worker {rank}" for rank in self._missing(era))
            raise PeerLostError(
                f"{names} did not come within {self._wait_s:g} s, where all workers average"
            )
        if not is_free():
            self._check(era)

    def _missing(self, era: _Era) -> list[int]:
        """Return the workers that the others wait for: not called, or stuck while they bring."""
        stuck = era.turn.rank if era.turn else None
        ranks = [rank for rank in range(self._size) if rank not in era.came]
        return [rank for rank in ranks if rank not in era.called or rank == stuck]

    def _check(self, era: _Era) -> None:
        if self._is_closed:
            raise PeerLostError("the run has ended where all workers average")
        if era is not self._era:
            raise PeerLostError("a worker was lost where all workers average: they begin anew")
