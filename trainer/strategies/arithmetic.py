"""The arithmetic of the exchanges: pure functions on flat tensors of shape (P,).

K workers hold x_1 ... x_K, the centre is x̃.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from prototxt_parser.flat_parameters import Segment


@dataclass(frozen=True)
class Layout:
    """Which parts of a flat tensor are weights and which are running statistics (BatchNorm).

    Attributes:
        weights: Ranges of weights, adjacent ones joined.
        statistics: Ranges of statistics, likewise.
    """

    weights: tuple[slice, ...]
    statistics: tuple[slice, ...]

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Self:
        """Return the layout of a net's flat buffer."""
        return cls(
            _joined(segment.slice for segment in segments if not segment.is_statistic),
            _joined(segment.slice for segment in segments if segment.is_statistic),
        )


def _joined(parts: Iterable[slice]) -> tuple[slice, ...]:
    joined: list[slice] = []
    for part in parts:
        if joined and joined[-1].stop == part.start:
            joined[-1] = slice(joined[-1].start, part.stop)
        else:
            joined.append(part)
    return tuple(joined)


def mean_(tensors: Sequence[Tensor]) -> None:
    """Replace every tensor by their unweighted mean, (1/K) Σ x_k, summed in the order given.

    Source: Moritz et al. 2016 (SparkNet), section 2, algorithm 1.
    """
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total.add_(tensor)
    total.div_(len(tensors))
    for tensor in tensors:
        tensor.copy_(total)


def elastic_worker_(parameters: Tensor, center: Tensor, moving_rate: float) -> None:
    """Move a worker to the centre: x_k ← (1 - α) x_k + α x̃.

    Source: Kim et al. 2016 (DeepSpark), section 3; Zhang et al. 2015 (EASGD), section 3.1.
    """
    parameters.lerp_(center, moving_rate)


def elastic_center_(center: Tensor, parameters: Tensor, rate: float) -> None:
    """Move the centre to a worker: x̃ ← (1 - r) x̃ + r x_k, with r = α · server_factor.

    Source: Kim et al. 2016 (DeepSpark), section 3; Zhang et al. 2015 (EASGD), section 3.1.
    """
    center.lerp_(parameters, rate)


def step_decay(value: float, rate: float, step: int, limit: int, iteration: int) -> float:
    """Return `value` after its decay: times `rate` per `step` iterations, `limit` times at most.

    Args:
        value: At iteration 0.
        rate: Factor per decay.
        step: Iterations between two decays; not above 0 means never.
        limit: Largest number of decays; negative means no limit.
        iteration: Iterations done.

    Source: deepspark/deepspark, DeepSparkParameter.
    """
    if step <= 0:
        return value
    times = iteration // step
    if limit >= 0:
        times = min(times, limit)
    return float(value * rate**times)
