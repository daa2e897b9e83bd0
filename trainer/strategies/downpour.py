"""Downpour SGD: updates are pushed, and the centre fetched, each at its own interval.

`train --net cifar10_quick.prototxt --workers 4 --strategy downpour --n-push 5 --n-fetch 5`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch

from trainer.links import CenterLink, Move
from trainer.strategies.base import CenterSettings, Options, Replica, Strategy, require
from trainer.strategies.registry import register_strategy


@final
@dataclass(frozen=True)
class DownpourOptions(Options):
    """Settings of Downpour SGD."""

    n_push: int = field(default=1, metadata={"help": "iterations of a worker between two pushes"})
    n_fetch: int = field(default=1, metadata={"help": "iterations of a worker between two fetches"})
    server_adagrad: float = field(
        default=0.0,
        metadata={"help": "rate of Adagrad at the centre (γ); 0: it subtracts what is pushed"},
    )

    def __post_init__(self) -> None:
        require(self.n_push >= 1, "n_push", "1 or more", self.n_push)
        require(self.n_fetch >= 1, "n_fetch", "1 or more", self.n_fetch)
        is_rate = 0 <= self.server_adagrad < float("inf")
        require(is_rate, "server_adagrad", "0 or more", self.server_adagrad)

    def interval(self, iteration: int) -> int:
        """Return the iterations to the next push or fetch, whichever comes first."""
        return min(n - iteration % n for n in (self.n_push, self.n_fetch))


@final
@register_strategy("downpour")
class Downpour(Strategy[CenterLink, DownpourOptions]):
    """Every n_push iterations a worker pushes u = Σ of its updates; every n_fetch it takes x̃.

        x̃ ← x̃ - u        or, by server Adagrad,        s ← s + u²; x̃ ← x̃ - γ·u / √s

    An update is what the worker's solver subtracts: multipliers, decay and momentum are in it. For
    SGD without momentum at a constant rate it is proportional to the gradient, and Adagrad, which
    does not see the scale, steps as the paper's. BatchNorm's statistics are not fetched: the
    centre's move by 1/K to the worker's. With the last push whatever is left goes out. A run
    that goes on from Caffe's snapshot, and not from a checkpoint, starts with s = 0.

    Source: Dean et al. 2012 (Downpour SGD), section 4.1 and algorithm 7.1; the subtraction is that
        of deepspark/deepspark.
    """

    is_synchronous = False
    options_type: ClassVar[type[Options]] = DownpourOptions

    @property
    def center(self) -> CenterSettings:
        """What the centre has to be like; for Adagrad it keeps squares."""
        return CenterSettings(keeps_squares=self.options.server_adagrad > 0)

    def start(self, replica: Replica, link: CenterLink) -> None:
        """Remember where the first sum of updates starts from."""
        del link
        self._base = replica.parameters.clone()
        self._sum = torch.zeros_like(self._base)

    def exchange(self, replica: Replica, link: CenterLink) -> int:
        """Push, fetch, or both in one message."""
        o, done, staleness = self.options, replica.iteration, 0
        is_fetch = done % o.n_fetch == 0
        self._sum.add_(self._base).sub_(replica.parameters)
        if done % o.n_push == 0 or replica.is_final:
            pull = link.exchange(self._pushed(replica), self._move, done, is_answered=is_fetch)
            center, staleness = pull.center, pull.staleness
            self._sum.zero_()
        else:
            center = link.fetch()
        if is_fetch:
            for part in replica.layout.weights:
                replica.parameters[part] = center[part]
        self._base.copy_(replica.parameters)
        return staleness

    @property
    def _move(self) -> Move:
        rate = self.options.server_adagrad
        return Move("adagrad", rate) if rate else Move("subtract")

    def _pushed(self, replica: Replica) -> torch.Tensor:
        for part in replica.layout.statistics:
            self._sum[part] = replica.parameters[part]
        return self._sum
