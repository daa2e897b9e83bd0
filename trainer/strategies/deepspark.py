"""DeepSpark: asynchronous elastic averaging with a centre.

`train --net cifar10_quick.prototxt --workers 2 --strategy deepspark --moving-rate 0.1`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, final

from prototxt_parser.proto.deepspark_pb2 import DeepSparkParameter
from prototxt_parser.text import parse_text
from trainer.errors import UsageError
from trainer.links import CenterLink, Move
from trainer.strategies.arithmetic import elastic_worker_, step_decay
from trainer.strategies.base import (
    CenterSettings,
    LocalOptions,
    Options,
    Phase,
    Replica,
    Strategy,
    require,
)
from trainer.strategies.registry import register_strategy

# However low the loss, workers do not lose sight of each other for longer than so many τ.
_LONGEST = 10


@final
@dataclass(frozen=True)
class DeepSparkOptions(LocalOptions):
    """Settings of DeepSpark; all but the last two are those of its own settings file."""

    moving_rate: float = field(
        default=0.1, metadata={"help": "how far a worker moves to the centre (α)"}
    )
    decay_rate: float = field(default=1.0, metadata={"help": "factor on moving_rate per decay"})
    decay_step: int = field(
        default=-1, metadata={"help": "iterations of a worker per decay; -1: never"}
    )
    decay_limit: int = field(
        default=-1, metadata={"help": "largest number of decays; -1: no limit"}
    )
    server_factor: float = field(
        default=1.0, metadata={"help": "times moving_rate: how far the centre moves"}
    )
    factor_decay_rate: float = field(
        default=1.0, metadata={"help": "factor on server_factor per decay of it"}
    )
    factor_decay_step: int = field(
        default=-1, metadata={"help": "iterations of a worker per decay of it; -1: never"}
    )
    factor_decay_limit: int = field(
        default=-1, metadata={"help": "largest number of decays of it; -1: no limit"}
    )
    lock_free: bool = field(
        default=False,
        metadata={"help": "several exchanges at once without a lock, as the original does"},
    )
    adaptive_period: bool = field(
        default=False,
        metadata={"help": "exchange when the loss sums up to that of the first τ iterations"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.moving_rate <= 1, "moving_rate", "0 to 1", self.moving_rate)
        require(0 <= self.decay_rate <= 1, "decay_rate", "0 to 1", self.decay_rate)
        center_rate = self.moving_rate * self.server_factor
        require(0 <= center_rate <= 1, "moving_rate · server_factor", "0 to 1", center_rate)
        require(
            0 <= self.factor_decay_rate <= 1, "factor_decay_rate", "0 to 1", self.factor_decay_rate
        )


def options_from_conf(path: Path) -> DeepSparkOptions:
    """Read DeepSpark's own settings file: prototxt of a `DeepSparkParameter`.

    Raises:
        UsageError: It cannot be read, or a value is out of its range.
        PrototxtError: It is not such a message.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the DeepSpark settings cannot be read ({error})") from error
    conf = parse_text(text, DeepSparkParameter(), str(path))
    try:
        return DeepSparkOptions(
            sync_interval=conf.period,
            moving_rate=conf.moving_rate,
            decay_rate=conf.decay_rate,
            decay_step=conf.decay_step,
            decay_limit=conf.decay_limit,
            server_factor=conf.server_factor,
            factor_decay_rate=conf.factor_decay_rate,
            factor_decay_step=conf.factor_decay_step,
            factor_decay_limit=conf.factor_decay_limit,
        )
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


@final
@register_strategy("deepspark")
class DeepSpark(Strategy[CenterLink, DeepSparkOptions]):
    """Every τ iterations a worker and the centre x̃ move towards each other, at the worker's time.

        x_k ← (1 - α) x_k + α x̃        x̃ ← (1 - α f) x̃ + α f x_k        (both from the old values)

    α is `moving_rate` and f `server_factor`, each after its decay. Momentum stays with the worker.
    BatchNorm's statistics are not pulled: the centre's move by 1/K to the worker's.

    With `adaptive_period` the loss summed over the first τ iterations is a budget: afterwards a
    worker exchanges when its loss summed since the last exchange exceeds it, so that the period
    grows as the loss falls. A loss that is no number exceeds it at once, and no period is longer
    than 10 τ. A worker that was lost, or a resumed run, measures its budget anew.

    Source: Kim et al. 2016 (DeepSpark), section 3; deepspark/deepspark.
    """

    is_synchronous = False
    options_type: ClassVar[type[Options]] = DeepSparkOptions

    def __init__(self, options: DeepSparkOptions) -> None:
        super().__init__(options)
        self._budget: float | None = None

    @property
    def center(self) -> CenterSettings:
        """What the centre has to be like; the paper's has no lock."""
        return CenterSettings(is_locked=not self.options.lock_free)

    def is_due(self, phase: Phase) -> bool:
        """Return whether τ iterations are done, or the loss budget is spent."""
        done, period = len(phase.losses), self.options.sync_interval
        if not self.options.adaptive_period:
            return done >= period
        if self._budget is None:
            if done < period:
                return False
            self._budget = sum(phase.losses)
            return True
        return not sum(phase.losses) <= self._budget or done >= _LONGEST * period

    def exchange(self, replica: Replica, link: CenterLink) -> int:
        """Send the parameters, take the centre as it was before, move to it."""
        moving_rate, center_rate = self.rates(replica.iteration)
        move = Move("elastic", center_rate)
        pull = link.exchange(replica.parameters, move, replica.iteration)
        for part in replica.layout.weights:
            elastic_worker_(replica.parameters[part], pull.center[part], moving_rate)
        return pull.staleness

    def rates(self, iteration: int) -> tuple[float, float]:
        """Return α and α · f after `iteration` iterations of a worker."""
        o = self.options
        moving_rate = step_decay(
            o.moving_rate, o.decay_rate, o.decay_step, o.decay_limit, iteration
        )
        factor = step_decay(
            o.server_factor,
            o.factor_decay_rate,
            o.factor_decay_step,
            o.factor_decay_limit,
            iteration,
        )
        return moving_rate, moving_rate * factor
