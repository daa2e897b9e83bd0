"""DiLoCo: Nesterov's momentum over the averages of long local phases.

`train --net cifar10_quick.prototxt --workers 4 --strategy diloco --sync-interval 100`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from trainer.links import Group
from trainer.strategies.arithmetic import outer_nesterov_
from trainer.strategies.base import LocalOptions, Options, Replica, Strategy, require
from trainer.strategies.registry import register_strategy


@final
@dataclass(frozen=True)
class DilocoOptions(LocalOptions):
    """Settings of DiLoCo."""

    sync_interval: int = field(
        default=100, metadata={"help": "iterations of a worker between two exchanges (τ)"}
    )
    outer_lr: float = field(
        default=0.7, metadata={"help": "rate of the step to the workers' mean (η)"}
    )
    outer_momentum: float = field(
        default=0.9, metadata={"help": "Nesterov momentum of these steps (μ)"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.outer_lr < float("inf"), "outer_lr", "0 or more", self.outer_lr)
        is_momentum = 0 <= self.outer_momentum < 1
        require(is_momentum, "outer_momentum", "0 to below 1", self.outer_momentum)


@final
@register_strategy("diloco")
class Diloco(Strategy[Group, DilocoOptions]):
    """Every τ iterations x̃ steps along Δ = x̃ - mean_k x_k, and every worker goes on from x̃.

        v ← μv + Δ        x̃ ← x̃ - η(Δ + μv)        x_k ← x̃

    Workers keep the momentum of their own solver. BatchNorm's statistics are averaged without a
    step. With η = 1 and μ = 0 it is SparkNet. From a Caffe snapshot a run starts with v = 0.

    Source: Douillard et al. 2023 (DiLoCo), algorithm 1; without momentum of the workers, Chen and
        Huo 2016 (BMUF).
    """

    is_synchronous = True
    options_type: ClassVar[type[Options]] = DilocoOptions

    def start(self, replica: Replica, link: Group) -> None:
        """Take a copy of x̃; v is zero."""
        del link
        self._center = replica.parameters.clone()
        self._velocity = torch.zeros_like(self._center)

    def state(self) -> tuple[Tensor, Tensor]:
        """Return x̃ and v."""
        return self._center, self._velocity

    def exchange(self, replica: Replica, link: Group) -> int:
        """Average, step, go on from x̃; all workers do the same."""
        mean = replica.parameters
        link.mean_(mean)
        outer_lr, momentum = self.options.outer_lr, self.options.outer_momentum
        for part in replica.layout.weights:
            place = self._center[part], self._velocity[part]
            outer_nesterov_(*place, mean[part], outer_lr, momentum)
        for part in replica.layout.statistics:
            self._center[part] = mean[part]
        replica.parameters.copy_(self._center)
        return 0
