"""The centre of an asynchronous run: x̃ and what is known of each worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import final

from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import Pull
from trainer.parameter_server.books import Books, Push
from trainer.parameter_server.center_file import CenterFile
from trainer.parameter_server.moves import check_push
from trainer.parameter_server.store import open_store
from trainer.strategies.arithmetic import Layout, may_push
from trainer.strategies.base import CenterSettings


@dataclass(frozen=True)
class Snapshot:
    """A centre at a moment.

    Attributes:
        parameters: Shape (P,).
        iterations: That each worker had brought in.
        state: See `Center.state`.
    """

    parameters: Tensor
    iterations: list[int]
    state: list[Tensor]


@final
class Center:
    """Holds the centre and moves it, or has other processes do so; many threads may call.

    Args:
        parameters: The start, shape (P,); copied unless the centre is still.
        layout: Which parts are weights.
        iterations: Iterations that each worker has completed at the start.
        settings: What the strategy asks for. With a limit on the staleness a worker that is too
            far ahead waits for the others.
        file: Where the centre is, if other processes map it. If they serve its ranges, workers
            exchange with them, and only count here.
        state: What `state` returned, of a run that goes on.
        wait_s: Longest wait for another worker.
        watch: Called in every exchange with the sum of the workers' iterations before and after it.
            It may call `copy`.

    Source: Kim et al. 2016 (DeepSpark), section 3; Lian et al. 2015 (AsySG-con), algorithm 1.
    """

    def __init__(
        self,
        parameters: Tensor,
        layout: Layout,
        iterations: Sequence[int],
        settings: CenterSettings,
        *,
        file: CenterFile | None = None,
        state: Sequence[Tensor] = (),
        wait_s: float = 1800.0,
        watch: Callable[[int, int], None] = lambda before, after: None,
    ) -> None:
        workers = len(iterations)
        self._store = open_store(parameters, state, layout, workers, file, settings, wait_s)
        self._books = Books(iterations, is_always_seen=settings.is_shared)
        self._is_closed = False
        self._watch, self._settings, self._wait_s = watch, settings, wait_s
        self._writing = threading.Lock()  # the books
        self._changed = threading.Condition()
        self._exchanging: AbstractContextManager[object] = (
            self._changed if settings.is_locked else nullcontext()
        )

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self._store.parameters.numel()

    @property
    def memory(self) -> Tensor:
        """The centre itself, for those who share it.

        Raises:
            TrainerError: The strategy does not share it.
        """
        if not self._settings.is_shared:
            raise TrainerError("the centre of this strategy is not shared: exchange with it")
        return self._store.parameters

    @property
    def iterations(self) -> list[int]:
        """Iterations that each worker has brought in."""
        return self._books.iterations

    @property
    def worker_iterations(self) -> int:
        """Sum of the iterations that the workers have brought in."""
        return sum(self._books.iterations)

    def register(self, rank: int) -> tuple[int, int]:
        """Begin a new attempt of a worker, which replaces those before.

        Returns:
            The attempt's number, and the iterations that earlier ones have brought in.
        """
        with self._changed, self._writing:
            attempt, iteration = self._books.register(rank)
            self._store.register(rank, attempt)
            self._changed.notify_all()  # it has no update under way any more that is too old
            return attempt, iteration

    def check_attempt(self, rank: int, attempt: int) -> None:
        """Refuse a worker that a newer attempt has replaced.

        Raises:
            TrainerError: It has, or no worker of this rank and attempt was ever registered.
        """
        self._books.check_attempt(rank, attempt)

    def leave(self, rank: int, attempt: int) -> None:
        """Note that a worker pushes no more; nobody waits for it."""
        with self._changed:
            self._books.leave(rank, attempt)
            self._changed.notify_all()

    def withdraw(self, rank: int) -> None:
        """Do without a worker: nobody waits for it, and it is refused if it comes back."""
        with self._changed, self._writing:
            self._store.register(rank, self._books.withdraw(rank))
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def copy(self) -> Tensor:
        """Return the centre as it is."""
        with self._exchanging:
            return self._store.copy(self._store.parameters)

    def state(self) -> list[Tensor]:
        """Return what the centre needs to go on from here besides its values, shape (P,) each."""
        with self._exchanging:
            has_squares = self._store.squares.numel() > 0
            return [self._store.copy(self._store.squares)] if has_squares else []

    def snapshot(self, into: Tensor | None = None) -> Snapshot:
        """Return the centre with what goes with it; of one moment, if exchanges are locked.

        Args:
            into: Where its values go, shape (P,); None for a new tensor.
        """
        with self._exchanging:
            values = self._store.copy(self._store.parameters, into)
            return Snapshot(values, self._books.iterations, self.state())

    def fetch(self, rank: int, attempt: int) -> Tensor:
        """Return the centre to a worker, which has then seen all updates.

        Shape (P,); (0,) where other processes serve the ranges: it fetches them there after this.
        """
        with self._exchanging, self._writing:
            self._books.see(rank, attempt)
            return self._store.fetch()

    def exchange(self, push: Push, sent: Tensor) -> Pull:
        """Move the centre as the push says, once per push; see `CenterLink.exchange`.

        Raises:
            TrainerError: The push is of a replaced attempt, of another size, or not finite; or the
                workers that it has to wait for do not come.
        """
        check_push(push, sent, len(self._books.iterations), self.size, self._store.rules)
        with self._exchanging:
            self._wait_for_others(push)
            with self._writing:
                entry = self._books.enter(push)
            center = self._store.exchange(
                push.move, sent, is_repeated=entry.is_repeated, is_answered=push.is_answered
            )
            if not entry.is_repeated:
                self._watch(entry.before, entry.after)
                self._tell_waiting()
            return Pull(center, entry.staleness)

    def _tell_waiting(self) -> None:
        if self._settings.max_staleness is not None:
            self._changed.notify_all()

    def _wait_for_others(self, push: Push) -> None:
        """Wait, without the lock, until no other worker's next push would be too stale for it."""
        limit = self._settings.max_staleness
        if limit is None or self._books.has(push):
            return
        is_free = self._changed.wait_for(
            lambda: (
                self._is_closed
                or may_push(
                    self._books.seen_by_others(push.rank).values(), self._books.version, limit
                )
            ),
            self._wait_s,
        )
        if not is_free:
            others = self._books.seen_by_others(push.rank)
            oldest = [rank for rank, seen in others.items() if seen == min(others.values())]
            raise TrainerError(
                f"worker {push.rank} has waited {self._wait_s:g} s for "
                f"{' and '.join(f'worker {rank}' for rank in oldest)}, whose next update may miss "
                f"no more than max_staleness {limit}: too slow, or lost? Allow more staleness, or "
                "see to its host"
            )
