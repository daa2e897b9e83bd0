"""SparkNet: synchronous averaging of the parameters.

`train --net cifar10_quick.prototxt --workers 2 --strategy sparknet --sync-interval 10`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

from trainer.links import Group
from trainer.strategies.base import LocalOptions, Options, Replica, Strategy, require
from trainer.strategies.registry import register_strategy

_MOMENTUM_CHOICES = ("keep", "reset", "average")


@final
@dataclass(frozen=True)
class SparkNetOptions(LocalOptions):
    """Settings of SparkNet."""

    momentum_at_sync: str = field(
        default="keep",
        metadata={
            "help": "what an averaging does to each worker's momentum (all solver histories)",
            "choices": _MOMENTUM_CHOICES,
        },
    )
    warm_start: int = field(
        default=0,
        metadata={"help": "first iterations of the run, which one process does alone"},
    )
    post_local: int = field(
        default=0,
        metadata={"help": "first iterations of a worker with an averaging at every one; then τ"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        is_known = self.momentum_at_sync in _MOMENTUM_CHOICES
        require(is_known, "momentum_at_sync", ", ".join(_MOMENTUM_CHOICES), self.momentum_at_sync)
        require(self.warm_start >= 0, "warm_start", "0 or more", self.warm_start)
        require(self.post_local >= 0, "post_local", "0 or more", self.post_local)

    def interval(self, iteration: int) -> int:
        """Return τ(t): 1 during the first `post_local` iterations of a worker, then τ."""
        return 1 if iteration < self.post_local else self.sync_interval


@final
@register_strategy("sparknet")
class SparkNet(Strategy[Group, SparkNetOptions]):
    """Every τ iterations all workers take the mean of every blob: x_k ← (1/K) Σ_j x_j.

    BatchNorm's statistics are averaged as every blob. By default each worker keeps its momentum.

    Source: Moritz et al. 2016 (SparkNet), section 2, algorithm 1; the schedule of τ: Lin et al.
        2020 (post-local SGD).
    """

    is_synchronous = True
    options_type: ClassVar[type[Options]] = SparkNetOptions

    def __init__(self, options: SparkNetOptions) -> None:
        super().__init__(options)
        self.warm_start = options.warm_start

    def exchange(self, replica: Replica, link: Group) -> int:
        """Average; nothing is ever stale."""
        link.mean_(replica.parameters)
        for slot in replica.history:
            if self.options.momentum_at_sync == "average":
                link.mean_(slot)
            elif self.options.momentum_at_sync == "reset":
                slot.zero_()
        return 0
