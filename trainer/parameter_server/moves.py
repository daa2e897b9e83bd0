"""What may be done to the centre: the closed set of moves, checked before and applied as told."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import Move
from trainer.strategies.arithmetic import Layout, adagrad_, elastic_center_, subtract_

# Largest rate of each.
_LIMITS = {"elastic": 1.0, "subtract": math.inf, "adagrad": math.inf, "count": math.inf}


def check_move(move: Move, sent: Tensor, size: int) -> None:
    """Refuse a move that is none, and a tensor that does not belong to it.

    Args:
        move: The move.
        sent: What came with it.
        size: Parameters of the centre.

    Raises:
        TrainerError: What was expected, and what came.
    """
    if move.rule not in _LIMITS:
        raise TrainerError(f"expected a move of {', '.join(_LIMITS)}; received {move.rule!r}")
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


class Mover:
    """Moves a centre, and keeps what its moves need: the sum of squares of Adagrad.

    Args:
        center: Moved in place, shape (P,).
        layout: Which parts are weights, which the moves are for.
        workers: K. Statistics go by 1/K to those sent: the worker keeps its own, so they are
            averaged, not pulled.
    """

    def __init__(self, center: Tensor, layout: Layout, workers: int) -> None:
        self._center, self._layout, self._workers = center, layout, workers
        self._squares = torch.zeros(0)
        self._rules: dict[str, Callable[[slice, Tensor, float], None]] = {
            "elastic": self._elastic,
            "subtract": self._subtract,
            "adagrad": self._adagrad,
        }

    def apply(self, move: Move, sent: Tensor) -> None:
        """Apply a move that `check_move` has passed."""
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
        if not self._squares.numel():
            self._squares = torch.zeros_like(self._center)
        adagrad_(self._center[part], self._squares[part], update, rate)
