"""What an exchange strategy is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

from torch import Tensor

from prototxt_parser.proto.caffe_pb2 import SolverParameter
from trainer.errors import UsageError
from trainer.strategies.arithmetic import Layout


@dataclass(frozen=True)
class Options:
    """Settings of a strategy. Each field is a flag: its name, type, default and `help`."""

    def interval(self, iteration: int) -> int:
        """Return how many iterations a worker runs after `iteration` of them to its exchange."""
        del iteration
        return 1

    def check_workers(self, workers: int) -> None:
        """Refuse a number of workers that the settings do not go with.

        Raises:
            UsageError: They do not.
        """


@dataclass(frozen=True)
class LocalOptions(Options):
    """Settings of a strategy whose workers train alone for τ iterations."""

    sync_interval: int = field(
        default=10, metadata={"help": "iterations of a worker between two exchanges (τ)"}
    )

    def __post_init__(self) -> None:
        require(self.sync_interval >= 1, "sync_interval", "1 or more", self.sync_interval)

    def interval(self, iteration: int) -> int:
        """Return τ."""
        del iteration
        return self.sync_interval


def flag(name: str) -> str:
    """Return what an option is called on the command line."""
    return f"--{name.replace('_', '-')}"


def require(is_met: bool, name: str, expected: str, received: object) -> None:
    """Raise UsageError about option `name` unless `is_met`."""
    if not is_met:
        raise UsageError(f"{name}: expected {expected}; received {received}")


@dataclass(frozen=True)
class Replica:
    """A worker's copy of the model, which an exchange changes in place.

    Attributes:
        parameters: All learnable blobs, shape (P,).
        update: Shape (P,). In an exchange of gradients the sum over iter_size passes; later what
            the solver has subtracted last. Scratch memory after that.
        history: The solver's histories, one of shape (P,) per slot.
        layout: Which parts are weights.
        iteration: Iterations that the worker has completed.
        is_final: The worker ends with this exchange.
    """

    parameters: Tensor
    update: Tensor
    history: Sequence[Tensor]
    layout: Layout
    iteration: int
    is_final: bool = False


@dataclass(frozen=True)
class Phase:
    """What a worker has done since its last exchange.

    Attributes:
        start: Iterations that it had completed then.
        losses: One per iteration since.
    """

    start: int
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class CenterSettings:
    """What a strategy asks of the centre of an asynchronous run.

    Attributes:
        is_locked: One exchange at a time, so that every centre is that of some order of them.
        is_shared: In memory that all workers of a host map and change themselves.
        is_still: Nobody moves it: workers that exchange among themselves begin with it.
        max_staleness: A push waits while it would make another worker's next one miss more updates
            than this; None for no limit.
        keeps_squares: There are `adagrad` moves, for which the centre keeps sums of squares.
    """

    is_locked: bool = True
    is_shared: bool = False
    is_still: bool = False
    max_staleness: int | None = None
    keeps_squares: bool = False

    def __post_init__(self) -> None:
        is_possible = self.is_locked or self.max_staleness is None
        require(is_possible, "max_staleness", "none without a lock", self.max_staleness)


LinkT = TypeVar("LinkT", contravariant=True)
OptionsT = TypeVar("OptionsT", bound=Options)


class Strategy(ABC, Generic[LinkT, OptionsT]):
    """What workers exchange, and when. One object per worker; a subclass is registered by name.

    Only `is_synchronous`, `options_type` and `exchange` have to be given.

    Attributes:
        is_synchronous: All workers exchange at once, over a `Group`; else each at its own time,
            over a `CenterLink`.
        exchanges_gradients: The exchange comes at every iteration, between backward and update;
            else after the updates of a phase. Synchronous strategies only.
        options_type: The dataclass of its settings.
        warm_start: Iterations that one process runs before workers start.
    """

    is_synchronous: bool
    exchanges_gradients: ClassVar[bool] = False
    options_type: ClassVar[type[Options]]
    warm_start: int = 0

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    @property
    def center(self) -> CenterSettings:
        """What the centre has to be like."""
        return CenterSettings(is_still=self.is_synchronous)

    def adapt(self, param: SolverParameter) -> None:
        """Change the settings of the workers' solver, in place."""

    def start(self, replica: Replica, link: LinkT) -> None:
        """Prepare before the first iteration; all workers hold the same parameters."""

    def is_due(self, phase: Phase) -> bool:
        """Return whether to exchange now; asked after every iteration."""
        return len(phase.losses) >= self.options.interval(phase.start)

    @abstractmethod
    def exchange(self, replica: Replica, link: LinkT) -> int:
        """Exchange once and return the staleness: updates by others that `replica` had not seen."""

    def state(self) -> Sequence[Tensor]:
        """Return what has to be kept to go on from here besides the replica, shape (P,) each.

        After `start`; what a checkpoint holds is copied into these tensors.
        """
        return ()

    def model(self, replica: Replica) -> Tensor:
        """Return what a synchronous run tests and saves after an exchange, shape (P,)."""
        return replica.parameters
