"""Reading ahead: one thread makes batches while the solver uses the ones before."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar, final

from trainer.errors import DataError, TrainerError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_JOIN_TIMEOUT_S = 30.0


@final
class Prefetcher(Generic[T]):
    """Calls `produce` in a thread of its own and keeps up to `depth` results ready.

    The thread starts with the first `get`. What `produce` raises comes out of `get` after the
    results made before it. The thread ends with `close`, or when nobody holds the prefetcher.

    Args:
        produce: Makes the next result; only ever called by the one thread.
        depth: Results kept ready; at least 1.
        what: What is waited for, for the message when it does not come.
        deadline_s: Longest wait for a result in seconds.
    """

    def __init__(
        self, produce: Callable[[], T], depth: int, what: str, deadline_s: float = 600.0
    ) -> None:
        self._line: _Line[T] = _Line(depth)
        self._what = what
        self._deadline_s = deadline_s
        self._process = os.getpid()
        self._thread = threading.Thread(
            target=_run, args=(self._line, produce), name=f"prefetch {what}", daemon=True
        )
        weakref.finalize(self, self._line.close)

    def get(self) -> T:
        """Return the next result.

        Raises:
            DataError: None came within the deadline.
            TrainerError: After `close`, or in a process forked since.
        """
        if self._process != os.getpid():
            raise TrainerError(
                f"{self._what}: its reading thread runs in process {self._process};"
                f" open the data anew in process {os.getpid()}"
            )
        if self._thread.ident is None:
            self._thread.start()
        return self._line.take(self._what, self._deadline_s)

    def close(self) -> bool:
        """Stop the thread and drop what it made. Idempotent.

        Returns:
            Whether the thread has ended; it may hang in a read that never returns.
        """
        if self._process != os.getpid():
            return False  # the thread, and perhaps a lock that it held, belong to the parent
        self._line.close()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_TIMEOUT_S)
        if self._thread.is_alive():
            logger.warning(
                "%s: still reading after %.0f s; left alone", self._what, _JOIN_TIMEOUT_S
            )
        return not self._thread.is_alive()


class _Line(Generic[T]):
    """Results on their way from the thread to the user."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._results: deque[T] = deque()
        self._error: BaseException | None = None
        self._is_closed = False
        self._changed = threading.Condition()

    def wait_for_room(self) -> bool:
        """Wait until one more result is wanted; False if none will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or len(self._results) < self._depth)
            return not self._is_closed

    def put(self, result: T) -> None:
        with self._changed:
            if not self._is_closed:
                self._results.append(result)
                self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def take(self, what: str, deadline_s: float) -> T:
        with self._changed:
            self._changed.wait_for(
                lambda: self._results or self._error or self._is_closed, deadline_s
            )
            if self._is_closed:
                raise TrainerError(f"{what}: closed")
            if self._results:
                self._changed.notify_all()
                return self._results.popleft()
            if self._error is not None:
                raise self._error
        raise DataError(
            f"{what}: waited {deadline_s:g} s and none came; check the disk or the network drive"
        )

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._results.clear()
            self._changed.notify_all()


def _run(line: _Line[T], produce: Callable[[], T]) -> None:
    try:
        while line.wait_for_room():
            line.put(produce())
    except BaseException as error:  # whatever it is, the user's thread has to see it
        line.fail(error)
