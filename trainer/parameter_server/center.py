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
from trainer.links import Pull
from trainer.strategies.arithmetic import Layout, elastic_center_


@dataclass(frozen=True)
class Push:
    """What a worker says about the parameters it sends.

    Attributes:
        rank: Which worker.
        attempt: Which start of that worker.
        sequence: Number of the push in that attempt, from 1. A repeated one is applied once.
        iteration: Iterations that the worker has completed.
        rate: How far the centre's weights move to the worker's, in [0, 1].
    """

    rank: int
    attempt: int
    sequence: int
    iteration: int
    rate: float


@dataclass
class _Worker:
    iteration: int
    attempt: int = 0
    sequence: int = 0
    seen: int = 0


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

    Weights move by the rate of the push. BatchNorm's statistics move by 1/K: the worker keeps its
    own, so they are averaged, not pulled.

    Args:
        parameters: The start, shape (P,); copied.
        layout: Which parts are weights.
        iterations: Iterations that each worker has completed at the start.
        is_locked: One exchange at a time, so that every centre is that of some order of the
            exchanges; else several at once, as in the paper.
        watch: Called in every exchange with the sum of the workers' iterations before and after it
            and the new centre, which it may only read, and only during the call.

    Source: Kim et al. 2016 (DeepSpark), section 3.
    """

    def __init__(
        self,
        parameters: Tensor,
        layout: Layout,
        iterations: Sequence[int],
        *,
        is_locked: bool = True,
        watch: Callable[[int, int, Tensor], None] = lambda before, after, center: None,
    ) -> None:
        self._parameters = parameters.detach().to("cpu", torch.float32, copy=True)
        self._layout = layout
        self._workers = [_Worker(iteration) for iteration in iterations]
        self._version = 0
        self._watch = watch
        self._books = threading.Lock()
        self._exchanging: AbstractContextManager[object] = (
            threading.Lock() if is_locked else nullcontext()
        )

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self._parameters.numel()

    @property
    def worker_iterations(self) -> int:
        """Sum of the iterations that the workers have brought in."""
        return sum(worker.iteration for worker in self._workers)

    def register(self, rank: int) -> tuple[int, int]:
        """Begin a new attempt of a worker, which replaces those before.

        Returns:
            The attempt's number, and the iterations that earlier ones have brought in.
        """
        self._check_rank(rank)
        with self._books:
            worker = self._workers[rank]
            worker.attempt += 1
            worker.sequence, worker.seen = 0, self._version
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

    def copy(self) -> Tensor:
        """Return the centre as it is."""
        with self._exchanging:
            return self._parameters.clone()

    def exchange(self, push: Push, parameters: Tensor) -> Pull:
        """Move the centre to `parameters`, once per push, and return what it was before.

        Raises:
            TrainerError: The push is of a replaced attempt, of another size, or not finite.
        """
        self._check_rank(push.rank)
        self._check_payload(push, parameters)
        with self._exchanging:
            with self._books:
                entry = self._enter(push)
            center = self._parameters.clone()
            if not entry.is_repeated:
                self._move(parameters, push.rate)
                self._watch(entry.before, entry.after, self._parameters)
            return Pull(center, entry.staleness)

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
        worker.seen = self._version
        return _Entry(staleness, before, self.worker_iterations, is_repeated)

    def _move(self, parameters: Tensor, rate: float) -> None:
        for part in self._layout.weights:
            elastic_center_(self._parameters[part], parameters[part], rate)
        for part in self._layout.statistics:
            elastic_center_(self._parameters[part], parameters[part], 1 / len(self._workers))

    def _check_payload(self, push: Push, parameters: Tensor) -> None:
        if parameters.shape != self._parameters.shape:
            raise TrainerError(
                f"worker {push.rank}: expected {self.size} parameters; received "
                f"{parameters.numel()}: all workers must train the same net"
            )
        if not 0 <= push.rate <= 1:
            raise TrainerError(f"worker {push.rank}: expected a rate of 0 to 1; got {push.rate}")
        # One pass without a temporary: a NaN or an infinity shows in the extremes.
        if parameters.numel() and not all(end.isfinite() for end in parameters.aminmax()):
            raise TrainerError(
                f"worker {push.rank}: NaN or infinite parameters after {push.iteration} "
                "iterations: training diverges; use a lower base_lr"
            )

    def _check_rank(self, rank: int) -> None:
        if not 0 <= rank < len(self._workers):
            raise TrainerError(f"expected a worker 0 to {len(self._workers) - 1}; received {rank}")
