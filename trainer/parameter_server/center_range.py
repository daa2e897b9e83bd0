"""One range of the centre, in the process that serves it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from torch import Tensor

from trainer.errors import TrainerError
from trainer.parameter_server.books import Push, check_attempt, check_rank
from trainer.parameter_server.center_file import CenterFile
from trainer.parameter_server.moves import Mover, check_push

_SEQUENCE_BITS = 32


@final
class CenterRange:
    """Moves a range of the centre; many threads may call.

    The values and the books are in the file, so the process may be killed at any moment, and
    another goes on. A push is entered into the books before it is applied: one that was under way
    may be lost, or be done in part, but none is applied twice.

    In a locked centre exchanges come one at a time, so the range is always that of some serial
    order. Two exchanges may come to two ranges in different orders: consistency between ranges is
    eventual.

    Args:
        file: Where the centre is.
        number: Which range of it.
        wait_s: Longest wait for another exchange.

    Source: Li et al. 2014 (Parameter Server), sections 3.4 and 4.
    """

    def __init__(self, file: CenterFile, number: int, wait_s: float) -> None:
        self._file, self._number, self._wait_s = file, number, wait_s
        memory, part = file.map(), file.ranges[number]
        self._attempts, self._pushes = memory.attempts, memory.pushes[number]
        self._values = memory.parameters[part]
        squares = memory.squares[part] if file.settings.keeps_squares else memory.squares
        self._mover = Mover(self._values, squares, file.layout.cut(part), file.workers)
        self._writing = threading.Lock()  # the books
        self._moving = threading.Lock()

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self._values.numel()

    def exchange(self, push: Push, sent: Tensor) -> Tensor:
        """Move the range as the push says, once per push.

        Returns:
            The range, as `Mover.exchange` does.

        Raises:
            TrainerError: The push is of a replaced attempt, of another size, or not finite.
        """
        check_push(push, sent, self._file.workers, self.size, self._mover.rules)
        with self._alone():
            is_repeated = self._enter(push)
            return self._mover.exchange(
                push.move, sent, is_repeated=is_repeated, is_answered=push.is_answered
            )

    def fetch(self, rank: int, attempt: int) -> Tensor:
        """Return the range to a worker.

        Raises:
            TrainerError: A newer attempt has replaced it.
        """
        check_rank(rank, self._file.workers)
        with self._alone():
            check_attempt(rank, attempt, int(self._attempts[rank]))
            return self._values.clone()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep out other exchanges, and the driver, if the centre is locked."""
        if not self._file.settings.is_locked:
            yield
            return
        if not self._moving.acquire(timeout=self._wait_s):
            raise TrainerError(
                f"range {self._number} of the centre was not free for {self._wait_s:g} s"
            )
        try:
            with self._file.held(self._number, self._wait_s):
                yield
        finally:
            self._moving.release()

    def _enter(self, push: Push) -> bool:
        """Enter a push into the books; return whether it was there."""
        if push.sequence >> _SEQUENCE_BITS:
            raise TrainerError(f"worker {push.rank}: a sequence of {push.sequence} is too large")
        with self._writing:
            check_attempt(push.rank, push.attempt, int(self._attempts[push.rank]))
            # In one number, so that it is written in one piece.
            entry = push.attempt << _SEQUENCE_BITS | push.sequence
            is_repeated = bool(self._pushes[push.rank] >= entry)
            if not is_repeated:
                self._pushes[push.rank] = entry
            return is_repeated
