"""HOGWILD!: workers of one host update the same memory without a lock.

`train --net lenet.prototxt --workers 2 --strategy hogwild`
"""

from __future__ import annotations

from typing import ClassVar, final

import torch

from trainer.links import CenterLink, Move
from trainer.strategies.arithmetic import subtract_
from trainer.strategies.base import CenterSettings, Options, Replica, Strategy
from trainer.strategies.registry import register_strategy


@final
@register_strategy("hogwild")
class Hogwild(Strategy[CenterLink, Options]):
    """After every iteration a worker updates the shared x̃ in place: x̃ ← x̃ - u; x_k ← x̃.

    u is what its solver subtracts, of a gradient at what it has read before. All workers map the
    same memory, so they have to run on one host, the driver's. Nothing is locked: an update that
    another overwrites half way is partly lost, as the paper has it. BatchNorm's statistics are
    shared as well; there the last writer counts. Momentum stays with the worker. The driver's
    service only counts iterations.

    Source: Niu et al. 2011 (HOGWILD!), section 3, algorithm 1.
    """

    is_synchronous = False
    options_type: ClassVar[type[Options]] = Options

    @property
    def center(self) -> CenterSettings:
        """What the centre has to be like: shared, and without a lock."""
        return CenterSettings(is_locked=False, is_shared=True)

    def start(self, replica: Replica, link: CenterLink) -> None:
        """Map the centre."""
        del replica
        self._shared = link.shared()

    def exchange(self, replica: Replica, link: CenterLink) -> int:
        """Write the update and the statistics, read everything, have the iteration counted."""
        shared, own = self._shared, replica.parameters
        for part in replica.layout.weights:
            subtract_(shared[part], replica.update[part].cpu(), 1.0)
        for part in replica.layout.statistics:
            shared[part] = own[part].cpu()
        own.copy_(shared)
        nothing = torch.empty(0)
        pull = link.exchange(nothing, Move("count"), replica.iteration, is_answered=False)
        return pull.staleness
