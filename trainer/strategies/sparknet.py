"""SparkNet: synchronous averaging of the parameters.

`train --net cifar10_quick.prototxt --workers 2 --strategy sparknet --sync-interval 10`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

from trainer.links import Group
from trainer.strategies.base import Options, Replica, Strategy, require
from trainer.strategies.registry import register_strategy

_MOMENTUM_CHOICES = ("keep", "reset", "average")


@final
@dataclass(frozen=True)
class SparkNetOptions(Options):
    """Settings of SparkNet."""

    momentum_at_sync: str = field(
        default="keep",
        metadata={
            "help": "what an averaging does to each worker's momentum (all solver histories)",
            "choices": _MOMENTUM_CHOICES,
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        is_known = self.momentum_at_sync in _MOMENTUM_CHOICES
        require(is_known, "momentum_at_sync", ", ".join(_MOMENTUM_CHOICES), self.momentum_at_sync)


@final
@register_strategy("sparknet")
class SparkNet(Strategy[Group, SparkNetOptions]):
    """Every τ iterations all workers take the mean of every blob: x_k ← (1/K) Σ_j x_j.

    BatchNorm's statistics are averaged as every blob. By default each worker keeps its momentum.
    Source: Moritz et al. 2016 (SparkNet), section 2, algorithm 1.
    """

    is_synchronous: ClassVar[bool] = True
    options_type: ClassVar[type[Options]] = SparkNetOptions

    def exchange(self, replica: Replica, link: Group) -> int:
        """Average; nothing is ever stale."""
        link.mean_(replica.parameters)
        for slot in replica.history:
            if self.options.momentum_at_sync == "average":
                link.mean_(slot)
            elif self.options.momentum_at_sync == "reset":
                slot.zero_()
        return 0
