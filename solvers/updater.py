"""One parameter update: clip, normalise, regularise, the solver's rule, subtract.

Source: caffe/src/caffe/solvers/sgd_solver.cpp, SGDSolver::ApplyUpdate and what it calls.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prototxt_parser.flat_parameters import FlatParameters, Segment
from prototxt_parser.proto.caffe_pb2 import SolverParameter
from solvers.errors import SolverError
from solvers.update_rules import solver_type

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Run:
    """Neighbouring blobs with the same multipliers, updated in one pass."""

    place: slice
    lr_mult: float
    decay_mult: float


class Updater:
    """Applies a solver's updates to flat parameters.

    Args:
        param: The solver's settings.
        flat: Parameters and gradients of the net.

    Attributes:
        history: One flat tensor per history slot, laid out like the parameters.

    Raises:
        SolverError: Unknown solver or regularisation type.
    """

    def __init__(self, param: SolverParameter, flat: FlatParameters) -> None:
        if param.regularization_type not in ("L1", "L2"):
            raise SolverError(
                f"Unknown regularization type: {param.regularization_type}; use L1 or L2"
            )
        self._param, self._flat = param, flat
        self._type = solver_type(param)
        self._runs = tuple(_runs(flat.segments))
        self.history = [torch.zeros_like(flat.data) for _ in range(self._type.slots)]

    @torch.no_grad()
    def update(self, rate: float, iteration: int) -> None:
        """Subtract one update made from the accumulated gradients, which hold it afterwards."""
        data, grad = self._flat.data, self._flat.grad
        self._clip(grad)
        if self._param.iter_size > 1:
            grad.mul_(1 / self._param.iter_size)
        for run in self._runs:
            self._regularize(data[run.place], grad[run.place], run.decay_mult)
            history = [slot[run.place] for slot in self.history]
            self._type.rule(grad[run.place], history, rate * run.lr_mult, iteration, self._param)
        data.sub_(grad)

    def _clip(self, grad: Tensor) -> None:
        """Scale the sum over iter_size passes down to the norm `clip_gradients`."""
        limit = self._param.clip_gradients
        if limit < 0:
            return
        norm = float(torch.linalg.vector_norm(grad))
        if norm > limit:
            logger.info(
                "Gradient clipping: scaling down gradients (L2 norm %g > %g) by scale factor %g",
                norm,
                limit,
                limit / norm,
            )
            grad.mul_(limit / norm)

    def _regularize(self, data: Tensor, grad: Tensor, decay_mult: float) -> None:
        decay = self._param.weight_decay * decay_mult
        if decay:
            is_l2 = self._param.regularization_type == "L2"
            grad.add_(data if is_l2 else data.sign(), alpha=decay)


def _runs(segments: Sequence[Segment]) -> Iterator[_Run]:
    start = 0
    for index, segment in enumerate(segments):
        following = segments[index + 1] if index + 1 < len(segments) else None
        if following is None or _multipliers(following) != _multipliers(segment):
            end = segment.offset + segment.size
            yield _Run(slice(start, end), segment.lr_mult, segment.decay_mult)
            start = end


def _multipliers(segment: Segment) -> tuple[float, float]:
    return segment.lr_mult, segment.decay_mult
