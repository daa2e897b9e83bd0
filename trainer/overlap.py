"""Exchanges that go on beside the iterations that follow them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor

from trainer.strategies import Replica


@final
class Overlap:
    """Runs one exchange at a time in a thread of its own.

    The strategy gets a copy x of the replica's parameters and makes x' of it. When that is done the
    difference is added to what the replica has become meanwhile: x_k ← x_k + (x' - x). So for an
    elastic exchange the pull comes some iterations late, and no iteration of the worker is lost.

    Args:
        executor: Where exchanges run; None for a thread.

    Source: Li et al. 2014 (Parameter Server), section 3.4, tasks that do not wait.
    """

    def __init__(self, executor: Executor | None = None) -> None:
        self._executor = executor or ThreadPoolExecutor(1, "exchange")
        self._pending: Future[int] | None = None
        self._before = self._after = torch.empty(0)

    @property
    def is_done(self) -> bool:
        """Whether an exchange has come back and waits to be settled."""
        return self._pending is not None and self._pending.done()

    def begin(self, replica: Replica, exchange: Callable[[Replica], int]) -> None:
        """Start an exchange; the last one has been settled."""
        self._before, self._after = replica.parameters.clone(), replica.parameters.clone()
        own = replace(replica, parameters=self._after, update=replica.update.clone())
        self._pending = self._executor.submit(exchange, own)

    def settle(self, parameters: Tensor) -> int:
        """Wait for the exchange under way, if there is one, and add what it changed.

        Args:
            parameters: The worker's, shape (P,).

        Returns:
            The staleness of it; 0 if there was none.

        Raises:
            TrainerError: What the exchange ended with.
        """
        if self._pending is None:
            return 0
        pending, self._pending = self._pending, None
        staleness = pending.result()  # the link has a deadline
        parameters.add_(self._after.sub_(self._before))
        return staleness

    def close(self) -> None:
        """Run no more exchanges."""
        self._executor.shutdown(wait=False, cancel_futures=True)


@final
class Inline(Executor):
    """Runs at once, in the caller's thread: for workers that take turns in one."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run, and return what came out."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # whatever it is, `settle` raises it
            future.set_exception(error)
        return future
