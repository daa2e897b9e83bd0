"""What may be done to the centre: the closed set of moves, checked before and applied as told."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from trainer.errors import DIVERGES, TrainerError
from trainer.links import Move
from trainer.parameter_server.books import Push, check_rank
from trainer.strategies.arithmetic import Layout, adagrad_, elastic_center_, subtract_

# Largest rate of each.
_LIMITS = {"elastic": 1.0, "subtract": math.inf, "adagrad": math.inf, "count": math.inf}


def check_move(move: Move, sent: Tensor, size: int, rules: Collection[str]) -> None:
    """Refuse a move that is none, and a tensor that does not belong to it.

    Args:
        move: The move.
        sent: What came with it.
        size: Parameters of the centre.
        rules: Those that the centre knows.

    Raises:
        TrainerError: What was expected, and what came.
    """
    if move.rule not in rules:
        raise TrainerError(f"expected a move of {', '.join(rules)}; received {move.rule!r}")
    limit = _LIMITS[move.rule]
    if not (math.isfinite(move.rate) and 0 <= move.rate <= limit):
        expected = "0 or more" if math.isinf(limit) else f"0 to {limit:g}"
        raise TrainerError(f"expected a rate of {expected}; received {move.rate}")
    expected_size = 0 if move.rule == "count" else size
    if sent.shape != (expected_size,):
        raise TrainerError(
            f"expected {expected_size} parameters; received {sent.numel()}: all workers must train "
            "the same net"
        )


def check_push(push: Push, sent: Tensor, workers: int, size: int, rules: Collection[str]) -> None:
    """Refuse a push of nobody, or one that brings what its move cannot take.

    Args:
        push: The push.
        sent: What came with it.
        workers: K.
        size: Parameters of the centre, or of the range that is moved.
        rules: Moves that are known there.

    Raises:
        TrainerError: Says whose it is, what was expected and what came.
    """
    check_rank(push.rank, workers)
    try:
        check_move(push.move, sent, size, rules)
        check_finite(sent, push.iteration)
    except TrainerError as error:
        raise TrainerError(f"worker {push.rank}: {error}") from error


def check_finite(sent: Tensor, iteration: int) -> None:
    """Refuse NaN and infinity.

    Args:
        sent: What a worker sends.
        iteration: Iterations that it has completed.

    Raises:
        TrainerError: There is one.
    """
    # One pass without a temporary: a NaN or an infinity shows in the extremes.
    if sent.numel() and not all(end.isfinite() for end in sent.aminmax()):
        raise TrainerError(
            f"NaN or infinite parameters after {iteration} iterations: {DIVERGES}; use a lower "
            "base_lr"
        )


class Mover:
    """Moves a centre, or a range of one.

    Args:
        center: Moved in place, shape (P,).
        squares: Sums of squares, for Adagrad's moves, shape (P,); or (0,), which allows none.
        layout: Which parts are weights, which the moves are for.
        workers: K. Statistics go by 1/K to those sent: the worker keeps its own, so they are
            averaged, not pulled.
    """

    def __init__(self, center: Tensor, squares: Tensor, layout: Layout, workers: int) -> None:
        self._center, self._squares = center, squares
        self._layout, self._workers = layout, workers
        self._rules: dict[str, Callable[[slice, Tensor, float], None]] = {
            "elastic": self._elastic,
            "subtract": self._subtract,
        }
        if squares.numel():
            self._rules["adagrad"] = self._adagrad

    @property
    def rules(self) -> tuple[str, ...]:
        """The moves that it knows."""
        return (*self._rules, "count")

    def exchange(self, move: Move, sent: Tensor, *, is_repeated: bool, is_answered: bool) -> Tensor:
        """Apply a move that `check_move` has passed, and return a copy of the centre.

        Args:
            move: The move.
            sent: What came with it.
            is_repeated: It has been applied before: only answer.
            is_answered: Whether a copy is wanted.

        Returns:
            The centre before an elastic move, after any other, shape (P,); (0,) if not wanted.
        """
        is_elastic = move.rule == "elastic"
        before = self._answer(is_answered and is_elastic)
        if not is_repeated:
            self._apply(move, sent)
        return before if is_elastic else self._answer(is_answered)

    def _answer(self, is_wanted: bool) -> Tensor:
        return self._center.clone() if is_wanted else torch.empty(0)

    def _apply(self, move: Move, sent: Tensor) -> None:
        if move.rule == "count":
            return
        for part in self._layout.weights:
            self._rules[move.rule](part, sent[part], move.rate)
        for part in self._layout.statistics:
            elastic_center_(self._center[part], sent[part], 1 / self._workers)

    def _elastic(self, part: slice, parameters: Tensor, rate: float) -> None:
        elastic_center_(self._center[part], parameters, rate)

    def _subtract(self, part: slice, update: Tensor, rate: float) -> None:
        subtract_(self._center[part], update, rate)

    def _adagrad(self, part: slice, update: Tensor, rate: float) -> None:
        adagrad_(self._center[part], self._squares[part], update, rate)
