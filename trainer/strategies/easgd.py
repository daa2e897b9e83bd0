"""EASGD: elastic averaging, of all workers at once or of each at its own time.

`train --net cifar10_quick.prototxt --workers 4 --strategy easgd --nesterov-momentum 0.9`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, final

from torch import Tensor

from prototxt_parser.proto.caffe_pb2 import SolverParameter
from trainer.errors import UsageError
from trainer.links import CenterLink, Group, Move
from trainer.strategies.arithmetic import elastic_center_, elastic_worker_
from trainer.strategies.base import LocalOptions, Options, Replica, Strategy, require
from trainer.strategies.registry import register_strategy


@final
@dataclass(frozen=True)
class EasgdOptions(LocalOptions):
    """Settings of EASGD."""

    moving_rate: float = field(
        default=0.1, metadata={"help": "how far a worker moves to the centre (α)"}
    )
    center_rate: float = field(
        default=-1.0,
        metadata={"help": "how far the centre moves to the mean of all workers (β); -1: K·α"},
    )
    asynchronous: bool = field(
        default=False, metadata={"help": "each worker exchanges at its own time; β is not used"}
    )
    nesterov_momentum: float = field(
        default=-1.0,
        metadata={"help": "EAMSGD: workers' solver is Nesterov with this momentum; -1: as it is"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.moving_rate <= 1, "moving_rate", "0 to 1", self.moving_rate)
        is_rate = self.center_rate == -1 or 0 <= self.center_rate <= 1
        require(is_rate, "center_rate", "0 to 1, or -1", self.center_rate)
        is_momentum = self.nesterov_momentum == -1 or 0 <= self.nesterov_momentum < 1
        require(is_momentum, "nesterov_momentum", "0 to below 1, or -1", self.nesterov_momentum)

    def beta(self, workers: int) -> float:
        """Return how far the centre moves to the mean of K workers."""
        return workers * self.moving_rate if self.center_rate == -1 else self.center_rate

    def check_workers(self, workers: int) -> None:
        """Refuse a centre that would move beyond the mean."""
        if not self.asynchronous and self.beta(workers) > 1:
            raise UsageError(
                f"moving_rate · workers: expected at most 1; received {self.moving_rate:g} · "
                f"{workers}: lower --moving-rate, or give --center-rate"
            )


@final
@register_strategy("easgd")
class Easgd(Strategy[Any, EasgdOptions]):
    """Every τ iterations workers and the centre x̃ pull at each other; x̃ is the model.

        x_k ← x_k - α (x_k - x̃)        x̃ ← x̃ + β (mean_k x_k - x̃)        (both from the old values)

    All workers at once, each with its own copy of x̃; or, asynchronously, each with the one centre,
    which then goes by α to that worker. BatchNorm's statistics are averaged, as in SparkNet, or
    the centre's move by 1/K. A Caffe snapshot holds x̃: all workers of a run that goes on from one
    start from it.

    Source: Zhang et al. 2015 (EASGD), section 3 and algorithms 1 and 2 (EAMSGD).
    """

    options_type: ClassVar[type[Options]] = EasgdOptions

    def __init__(self, options: EasgdOptions) -> None:
        super().__init__(options)
        self.is_synchronous = not options.asynchronous

    def adapt(self, param: SolverParameter) -> None:
        """Turn the workers' solver into EAMSGD's, if asked to."""
        if self.options.nesterov_momentum == -1:
            return
        if param.type not in ("SGD", "Nesterov"):
            raise UsageError(
                f"nesterov_momentum: expected a solver of type SGD or Nesterov; received "
                f"{param.type}: leave the option out to keep the solver as it is"
            )
        param.type, param.momentum = "Nesterov", self.options.nesterov_momentum

    def start(self, replica: Replica, link: Group | CenterLink) -> None:
        """Take a copy of x̃."""
        del link
        self._center = replica.parameters.clone()

    def state(self) -> tuple[Tensor]:
        """Return x̃."""
        return (self._center,)

    def exchange(self, replica: Replica, link: Any) -> int:
        """Exchange with the other workers, or with the centre."""
        if self.is_synchronous:
            return self._meet_workers(replica, link)
        return self._meet_center(replica, link)

    def model(self, replica: Replica) -> Tensor:
        """Return x̃."""
        return self._center

    def _meet_workers(self, replica: Replica, group: Group) -> int:
        mean = replica.update.copy_(replica.parameters)
        group.mean_(mean)
        beta = self.options.beta(group.size)
        for part in replica.layout.weights:
            elastic_worker_(replica.parameters[part], self._center[part], self.options.moving_rate)
            elastic_center_(self._center[part], mean[part], beta)
        for part in replica.layout.statistics:
            replica.parameters[part] = self._center[part] = mean[part]
        return 0

    def _meet_center(self, replica: Replica, link: CenterLink) -> int:
        rate = self.options.moving_rate
        pull = link.exchange(replica.parameters, Move("elastic", rate), replica.iteration)
        for part in replica.layout.weights:
            elastic_worker_(replica.parameters[part], pull.center[part], rate)
        return pull.staleness
