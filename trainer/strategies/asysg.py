"""AsySG-con: every update goes to the centre, which bounds how stale it may be.

`train --net cifar10_quick.prototxt --workers 4 --strategy asysg --max-staleness 8`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

from trainer.links import CenterLink, Move
from trainer.strategies.base import CenterSettings, Options, Replica, Strategy, require
from trainer.strategies.registry import register_strategy


@final
@dataclass(frozen=True)
class AsysgOptions(Options):
    """Settings of AsySG-con."""

    max_staleness: int = field(
        default=16,
        metadata={"help": "most updates by others that an update may have missed (T)"},
    )

    def __post_init__(self) -> None:
        require(self.max_staleness >= 0, "max_staleness", "0 or more", self.max_staleness)

    def check_workers(self, workers: int) -> None:
        """Refuse a bound that K workers at once cannot keep."""
        expected = f"{workers - 1} or more with {workers} workers"
        require(self.max_staleness >= workers - 1, "max_staleness", expected, self.max_staleness)


@final
@register_strategy("asysg")
class Asysg(Strategy[CenterLink, AsysgOptions]):
    """After every iteration a worker's update u is taken off the centre: x̃ ← x̃ - u; x_k ← x̃.

    u is what the worker's solver subtracts, made from a gradient at an x̃ that may be up to T
    updates old: for SGD without momentum, the paper's γ·g. A worker that is too far ahead waits at
    the centre. The paper's server adds M gradients into an update; here M is 1. BatchNorm's
    statistics are not pulled: the centre's move by 1/K to the worker's. Momentum stays with the
    worker; as asynchrony acts like more of it, lower it with many workers.

    Source: Lian et al. 2015 (AsySG-con), section 3, algorithm 1.
    """

    is_synchronous = False
    options_type: ClassVar[type[Options]] = AsysgOptions

    @property
    def center(self) -> CenterSettings:
        """What the centre has to be like: it makes workers wait."""
        return CenterSettings(max_staleness=self.options.max_staleness)

    def exchange(self, replica: Replica, link: CenterLink) -> int:
        """Send the update; take the centre after it."""
        for part in replica.layout.statistics:
            replica.update[part] = replica.parameters[part]
        pull = link.exchange(replica.update, Move("subtract"), replica.iteration)
        for part in replica.layout.weights:
            replica.parameters[part] = pull.center[part]
        return pull.staleness
