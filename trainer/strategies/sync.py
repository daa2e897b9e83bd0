"""Synchronous SGD: the mean gradient at every iteration, as Caffe with several GPUs.

`train --net cifar10_quick.prototxt --workers 2 --strategy sync`
"""

from __future__ import annotations

from typing import ClassVar, final

from trainer.links import Group
from trainer.strategies.base import Options, Replica, Strategy
from trainer.strategies.registry import register_strategy


@final
@register_strategy("sync")
class Sync(Strategy[Group, Options]):
    """At every iteration all workers update with their mean gradient: g ← (1/K) Σ_k g_k.

    The mean comes before clipping, regularization and the solver's rule, so every worker makes the
    same update and momentum is that of one machine whose batch is K times as large. A worker that
    has nothing left to compute in the last iteration gives zeros.

    Differs from Caffe: the statistics of BatchNorm are averaged too, in the same message; there
    each GPU keeps its own, and the first one's are saved.

    Source: caffe/src/caffe/parallel.cpp, NCCL; Moritz et al. 2016 (SparkNet), the
        naive parallelization that it compares with.
    """

    is_synchronous = True
    exchanges_gradients: ClassVar[bool] = True
    options_type: ClassVar[type[Options]] = Options

    def exchange(self, replica: Replica, link: Group) -> int:
        """Average the gradients, whose places for statistics are free to carry these."""
        statistics = replica.layout.statistics
        for part in statistics:
            replica.update[part] = replica.parameters[part]
        link.mean_(replica.update)
        for part in statistics:
            replica.parameters[part] = replica.update[part]
            replica.update[part] = 0
        return 0
