"""What a worker is connected to, the same on every cluster: its peers and the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from trainer.errors import TrainerError


class PeerLostError(TrainerError):
    """A worker cannot go on because another one has ended or does not come."""


class Group(Protocol):
    """The workers of a synchronous run, all of which make the same calls in the same order."""

    def mean_(self, tensor: Tensor) -> None:
        """Replace `tensor` on every rank by the unweighted mean over all ranks.

        Raises:
            PeerLostError: Another worker has ended or does not come.
        """


@dataclass(frozen=True)
class Pull:
    """Answer to an exchange.

    Attributes:
        center: The centre before the exchange, shape (P,).
        staleness: Updates by other workers since this worker last saw the centre.
    """

    center: Tensor
    staleness: int


class CenterLink(Protocol):
    """The centre of an asynchronous run."""

    def exchange(self, parameters: Tensor, rate: float, iteration: int) -> Pull:
        """Move the centre by `rate` towards `parameters`; return what it was before.

        Args:
            parameters: This worker's, shape (P,).
            rate: In [0, 1].
            iteration: Iterations that this worker has completed.
        """


@dataclass(frozen=True)
class Start:
    """What a worker begins with.

    Attributes:
        attempt: Number of this start of the rank, from 1; a new one replaces those before.
        iteration: Iterations that earlier attempts of the rank have brought into the centre.
        parameters: Shape (P,).
        history: One tensor of shape (P,) per slot; none after a lost attempt, whose momentum is
            lost with it.
    """

    attempt: int
    iteration: int
    parameters: Tensor
    history: Sequence[Tensor]


@dataclass(frozen=True)
class Control:
    """What the driver wants of a worker.

    Attributes:
        stop: End after the current iteration.
        publish: Rank 0 of a synchronous run: publish after the next exchange.
    """

    stop: bool = False
    publish: bool = False


Record = Mapping[str, Any]


class DriverLink(CenterLink, Protocol):
    """One worker's connection to the driver."""

    def start(self, host: str) -> Start:
        """Register this worker, which runs on `host`, and fetch what it begins with."""

    def report(self, records: Sequence[Record]) -> Control:
        """Hand over measurements (JSON values) and learn what the driver wants."""

    def publish(self, iteration: int, parameters: Tensor, history: Sequence[Tensor]) -> None:
        """Hand over the state of a synchronous run after `iteration` iterations of all workers."""

    def finish(self) -> None:
        """Tell that this worker has done its work."""

    def fail(self, message: str, details: str, *, is_lost_peer: bool) -> None:
        """Tell why this worker ends; `is_lost_peer` if only because another one did."""
