"""What is known of each worker of an asynchronous run: how far it is, and what it has pushed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from trainer.errors import TrainerError
from trainer.links import Move


@dataclass(frozen=True)
class Push:
    """What a worker says about the tensor it sends.

    Attributes:
        rank: Which worker.
        attempt: Which start of that worker.
        sequence: Number of the push in that attempt, from 1. A repeated one is applied once.
        iteration: Iterations that the worker has completed.
        move: What to do with the centre.
        is_answered: Whether the worker wants the centre.
    """

    rank: int
    attempt: int
    sequence: int
    iteration: int
    move: Move
    is_answered: bool = True


@dataclass
class _Worker:
    iteration: int
    attempt: int = 0
    sequence: int = 0
    seen: int = 0
    is_working: bool = False


@dataclass(frozen=True)
class Entry:
    """A push in the books.

    Attributes:
        staleness: Updates by others that the worker had not seen.
        before: Sum of the workers' iterations before it.
        after: And after it.
        is_repeated: It was in the books already.
    """

    staleness: int
    before: int
    after: int
    is_repeated: bool


@final
class Books:
    """Keeps the books. Not thread-safe.

    Args:
        iterations: Iterations that each worker has completed at the start.
        is_always_seen: Workers see the centre with every push, asked for or not.

    Attributes:
        version: Pushes so far.
    """

    def __init__(self, iterations: Sequence[int], *, is_always_seen: bool) -> None:
        self._workers = [_Worker(iteration) for iteration in iterations]
        self._is_always_seen = is_always_seen
        self.version = 0

    @property
    def iterations(self) -> list[int]:
        """Iterations that each worker has brought in."""
        return [worker.iteration for worker in self._workers]

    def register(self, rank: int) -> tuple[int, int]:
        """Begin a new attempt of a worker; see `Center.register`."""
        check_rank(rank, len(self._workers))
        worker = self._workers[rank]
        worker.attempt += 1
        worker.sequence, worker.seen, worker.is_working = 0, self.version, True
        return worker.attempt, worker.iteration

    def check_attempt(self, rank: int, attempt: int) -> None:
        """Refuse a worker that a newer attempt has replaced; see `Center.check_attempt`."""
        check_rank(rank, len(self._workers))
        check_attempt(rank, attempt, self._workers[rank].attempt)

    def leave(self, rank: int, attempt: int) -> None:
        """Note that a worker pushes no more."""
        self.check_attempt(rank, attempt)
        self._workers[rank].is_working = False

    def withdraw(self, rank: int) -> int:
        """Refuse a worker from now on, and return the attempt that nobody has."""
        check_rank(rank, len(self._workers))
        worker = self._workers[rank]
        worker.attempt, worker.is_working = worker.attempt + 1, False
        return worker.attempt

    def see(self, rank: int, attempt: int) -> None:
        """Note that a worker has seen all updates."""
        self.check_attempt(rank, attempt)
        self._workers[rank].seen = self.version

    def seen_by_others(self, rank: int) -> dict[int, int]:
        """Return, for every other worker that has an update under way, the version it has seen."""
        ranks = enumerate(self._workers)
        return {r: w.seen for r, w in ranks if w.is_working and r != rank}

    def has(self, push: Push) -> bool:
        """Return whether a push, or a later one of the worker's, is in the books."""
        return push.sequence <= self._workers[push.rank].sequence

    def enter(self, push: Push) -> Entry:
        """Enter a push.

        Raises:
            TrainerError: It is of a replaced attempt, or behind what the worker brought in before.
        """
        self.check_attempt(push.rank, push.attempt)
        worker, before = self._workers[push.rank], sum(self.iterations)
        staleness, is_repeated = self.version - worker.seen, self.has(push)
        if not is_repeated:
            if push.iteration < worker.iteration:
                raise TrainerError(
                    f"worker {push.rank}: expected iteration {worker.iteration} or later; "
                    f"received {push.iteration}"
                )
            self.version += 1
            worker.iteration, worker.sequence = push.iteration, push.sequence
            worker.seen += 1  # its own update is none by another
        if push.is_answered or self._is_always_seen:
            worker.seen = self.version
        return Entry(staleness, before, sum(self.iterations), is_repeated)


def check_rank(rank: int, workers: int) -> None:
    """Refuse a worker that there is not.

    Raises:
        TrainerError: It is none of the K.
    """
    if not 0 <= rank < workers:
        raise TrainerError(f"expected a worker 0 to {workers - 1}; received {rank}")


def check_attempt(rank: int, attempt: int, current: int) -> None:
    """Refuse an attempt that is not the current one.

    Raises:
        TrainerError: It is not.
    """
    if attempt < 1:
        raise TrainerError(f"worker {rank}: expected an attempt from 1; received {attempt}")
    if attempt != current:
        raise TrainerError(
            f"worker {rank}, attempt {attempt}: refused, attempt {current} is the current one"
        )
