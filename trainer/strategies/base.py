"""What an exchange strategy is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

from torch import Tensor

from trainer.errors import UsageError
from trainer.strategies.arithmetic import Layout


@dataclass(frozen=True)
class Options:
    """Settings of a strategy. Each field is a flag: its name, type, default and `help`."""

    sync_interval: int = field(
        default=10, metadata={"help": "iterations of a worker between two exchanges (τ)"}
    )

    def __post_init__(self) -> None:
        require(self.sync_interval >= 1, "sync_interval", "1 or more", self.sync_interval)


def require(is_met: bool, name: str, expected: str, received: object) -> None:
    """Raise UsageError about option `name` unless `is_met`."""
    if not is_met:
        raise UsageError(f"{name}: expected {expected}; received {received}")


@dataclass(frozen=True)
class Replica:
    """A worker's copy of the model, which an exchange changes in place.

    Attributes:
        parameters: All learnable blobs, shape (P,).
        history: The solver's histories, one of shape (P,) per slot.
        layout: Which parts are weights.
        iteration: Iterations that the worker has completed.
    """

    parameters: Tensor
    history: Sequence[Tensor]
    layout: Layout
    iteration: int


LinkT = TypeVar("LinkT", contravariant=True)
OptionsT = TypeVar("OptionsT", bound=Options)


class Strategy(ABC, Generic[LinkT, OptionsT]):
    """What workers exchange. One object per worker; a subclass is final and registered.

    Between two exchanges every worker runs `options.sync_interval` iterations of its own solver.

    Attributes:
        is_synchronous: All workers exchange at once, over a `Group`; else each at its own time,
            over a `CenterLink`.
        options_type: The dataclass of its settings.
    """

    is_synchronous: ClassVar[bool]
    options_type: ClassVar[type[Options]]

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    @property
    def is_center_locked(self) -> bool:
        """Whether the centre takes one exchange at a time."""
        return True

    @abstractmethod
    def exchange(self, replica: Replica, link: LinkT) -> int:
        """Exchange once and return the staleness: updates by others that `replica` had not seen."""
