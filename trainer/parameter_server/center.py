"""The centre of an asynchronous run: x̃ and what is known of each worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import Move, Pull
from trainer.parameter_server.moves import Mover, check_move
from trainer.strategies.arithmetic import Layout, may_push
from trainer.strategies.base import CenterSettings


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
class _Entry:
    """A push in the books: the workers' iterations before and after it."""

    staleness: int
    before: int
    after: int
    is_repeated: bool


@final
class Center:
    """Holds the centre and moves it; many threads may call.

    Args:
        parameters: The start, shape (P,); copied.
        layout: Which parts are weights.
        iterations: Iterations that each worker has completed at the start.
        settings: What the strategy asks for. With a limit on the staleness a worker that is too
            far ahead waits for the others.
        memory: Where to hold the centre, shape (P,), if others share it.
        wait_s: Longest wait for another worker.
        watch: Called in every exchange with the sum of the workers' iterations before and after it
            and the new centre, which it may only read, and only during the call.

    Source: Kim et al. 2016 (DeepSpark), section 3; Lian et al. 2015 (AsySG-con), algorithm 1.
    """

    def __init__(
        self,
        parameters: Tensor,
        layout: Layout,
        iterations: Sequence[int],
        settings: CenterSettings,
        *,
        memory: Tensor | None = None,
        wait_s: float = 1800.0,
        watch: Callable[[int, int, Tensor], None] = lambda before, after, center: None,
    ) -> None:
        self._parameters = torch.empty(parameters.shape) if memory is None else memory
        self._parameters.copy_(parameters)
        self._mover = Mover(self._parameters, layout, len(iterations))
        self._workers = [_Worker(iteration) for iteration in iterations]
        self._version, self._is_closed = 0, False
        self._watch, self._settings, self._wait_s = watch, settings, wait_s
        self._books = threading.Lock()
        self._changed = threading.Condition()
        self._exchanging: AbstractContextManager[object] = (
            self._changed if settings.is_locked else nullcontext()
        )

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self._parameters.numel()

    @property
    def memory(self) -> Tensor:
        """The centre itself, for those who share it.

        Raises:
            TrainerError: The strategy does not share it.
        """
        if not self._settings.is_shared:
            raise TrainerError("the centre of this strategy is not shared: exchange with it")
        return self._parameters

    @property
    def worker_iterations(self) -> int:
        """Sum of the iterations that the workers have brought in."""
        return sum(worker.iteration for worker in self._workers)

    @property
    def iterations(self) -> list[int]:
        """Iterations that each worker has brought in."""
        return [worker.iteration for worker in self._workers]

    def register(self, rank: int) -> tuple[int, int]:
        """Begin a new attempt of a worker, which replaces those before.

        Returns:
            The attempt's number, and the iterations that earlier ones have brought in.
        """
        self._check_rank(rank)
        with self._books:
            worker = self._workers[rank]
            worker.attempt += 1
            worker.sequence, worker.seen, worker.is_working = 0, self._version, True
            return worker.attempt, worker.iteration

    def check_attempt(self, rank: int, attempt: int) -> None:
        """Refuse a worker that a newer attempt has replaced.

        Raises:
            TrainerError: It has, or no worker of this rank and attempt was ever registered.
        """
        self._check_rank(rank)
        current = self._workers[rank].attempt
        if attempt != current:
            raise TrainerError(
                f"worker {rank}, attempt {attempt}: refused, attempt {current} is the current one"
            )

    def leave(self, rank: int, attempt: int) -> None:
        """Note that a worker pushes no more; nobody waits for it."""
        with self._changed:
            self.check_attempt(rank, attempt)
            self._workers[rank].is_working = False
            self._changed.notify_all()

    def withdraw(self, rank: int) -> None:
        """Note that nobody has to wait for a worker that is lost; it may come back."""
        with self._changed:
            self._workers[rank].is_working = False
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def copy(self) -> Tensor:
        """Return the centre as it is."""
        with self._exchanging:
            return self._parameters.clone()

    def fetch(self, rank: int, attempt: int) -> Tensor:
        """Return the centre to a worker, which has then seen all updates."""
        with self._exchanging, self._books:
            self.check_attempt(rank, attempt)
            self._workers[rank].seen = self._version
            return self._parameters.clone()

    def exchange(self, push: Push, sent: Tensor) -> Pull:
        """Move the centre as the push says, once per push; see `CenterLink.exchange`.

        Raises:
            TrainerError: The push is of a replaced attempt, of another size, or not finite; or the
                workers that it has to wait for do not come.
        """
        self._check_rank(push.rank)
        self._check_sent(push, sent)
        with self._exchanging:
            self._wait_for_others(push)
            with self._books:
                entry = self._enter(push)
            is_elastic = push.move.rule == "elastic"
            center = self._answer(push.is_answered and is_elastic)
            if not entry.is_repeated:
                self._mover.apply(push.move, sent)
                self._watch(entry.before, entry.after, self._parameters)
                self._tell_waiting()
            if not is_elastic:
                center = self._answer(push.is_answered)
            return Pull(center, entry.staleness)

    def _answer(self, is_wanted: bool) -> Tensor:
        return self._parameters.clone() if is_wanted else torch.empty(0)

    def _tell_waiting(self) -> None:
        if self._settings.max_staleness is not None:
            self._changed.notify_all()

    def _wait_for_others(self, push: Push) -> None:
        """Wait, without the lock, until no other worker's next push would be too stale for it."""
        limit = self._settings.max_staleness
        if limit is None or push.sequence <= self._workers[push.rank].sequence:
            return
        is_free = self._changed.wait_for(
            lambda: self._is_closed or may_push(self._others(push).values(), self._version, limit),
            self._wait_s,
        )
        if not is_free:
            others = self._others(push)
            oldest = [rank for rank, seen in others.items() if seen == min(others.values())]
            raise TrainerError(
                f"worker {push.rank} has waited {self._wait_s:g} s for "
                f"{' and '.join(f'worker {rank}' for rank in oldest)}, whose next update may miss "
                f"no more than max_staleness {limit}: too slow, or lost? Allow more staleness, or "
                "see to its host"
            )

    def _others(self, push: Push) -> dict[int, int]:
        """Return, for every other worker that has an update under way, the version it has seen."""
        ranks = enumerate(self._workers)
        return {r: w.seen for r, w in ranks if w.is_working and r != push.rank}

    def _enter(self, push: Push) -> _Entry:
        self.check_attempt(push.rank, push.attempt)
        worker, before = self._workers[push.rank], self.worker_iterations
        staleness, is_repeated = self._version - worker.seen, push.sequence <= worker.sequence
        if not is_repeated:
            if push.iteration < worker.iteration:
                raise TrainerError(
                    f"worker {push.rank}: expected iteration {worker.iteration} or later; "
                    f"received {push.iteration}"
                )
            self._version += 1
            worker.iteration, worker.sequence = push.iteration, push.sequence
            worker.seen += 1  # its own update is none by another
        if push.is_answered or push.move.rule == "count":
            worker.seen = self._version
        return _Entry(staleness, before, self.worker_iterations, is_repeated)

    def _check_sent(self, push: Push, sent: Tensor) -> None:
        try:
            check_move(push.move, sent, self.size)
        except TrainerError as error:
            raise TrainerError(f"worker {push.rank}: {error}") from error
        # One pass without a temporary: a NaN or an infinity shows in the extremes.
        if sent.numel() and not all(end.isfinite() for end in sent.aminmax()):
            raise TrainerError(
                f"worker {push.rank}: NaN or infinite parameters after {push.iteration} "
                "iterations: training diverges; use a lower base_lr"
            )

    def _check_rank(self, rank: int) -> None:
        if not 0 <= rank < len(self._workers):
            raise TrainerError(f"expected a worker 0 to {len(self._workers) - 1}; received {rank}")
