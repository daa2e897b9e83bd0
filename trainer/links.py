"""What a worker is connected to, the same on every cluster: its peers and the driver."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from trainer.errors import TrainerError


class PeerLostError(TrainerError):
    """A worker cannot go on because another one has ended or does not come."""


@dataclass(frozen=True)
class Traffic:
    """Bytes of tensors that have gone over a link.

    Attributes:
        sent: By the worker.
        received: By the worker.
    """

    sent: int = 0
    received: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.sent + other.sent, self.received + other.received)

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(self.sent - other.sent, self.received - other.received)


class Group(Protocol):
    """The workers of a synchronous run, all of which make the same calls in the same order."""

    @property
    def size(self) -> int:
        """Number of workers."""

    @property
    def traffic(self) -> Traffic:
        """Bytes that this worker has given and got so far."""

    def mean_(self, tensor: Tensor) -> None:
        """Replace `tensor` on every rank by the unweighted mean over all ranks.

        Raises:
            PeerLostError: Another worker has ended or does not come.
        """


@dataclass(frozen=True)
class Move:
    """What an exchange does to the centre x̃, said in words and numbers; nothing of it is code.

    Attributes:
        rule: `elastic`: x̃ moves to the worker's parameters, which are sent, by `rate` in [0, 1].
            `subtract`: x̃ loses `rate` times the update that is sent. `adagrad`: the same, divided
            per parameter by the root of the sum of all squared updates so far. `count`: nothing is
            sent or moved; the worker's iterations are counted.
        rate: Not negative.
    """

    rule: Literal["elastic", "subtract", "adagrad", "count"]
    rate: float = 1.0


@dataclass(frozen=True)
class Pull:
    """Answer to an exchange.

    Attributes:
        center: The centre, shape (P,): before an elastic move, after any other. Shape (0,) if it
            was not asked for.
        staleness: Updates by other workers since this worker last saw the centre.
    """

    center: Tensor
    staleness: int


class CenterLink(Protocol):
    """The centre of an asynchronous run.

    Where the layout has running statistics, what is sent holds the worker's own, whatever the move:
    the centre's go by 1/K to them.
    """

    @property
    def traffic(self) -> Traffic:
        """Bytes that have gone over this link so far."""

    def exchange(
        self, sent: Tensor, move: Move, iteration: int, *, is_answered: bool = True
    ) -> Pull:
        """Change the centre.

        Args:
            sent: What the move asks for, shape (P,), or (0,) to count only. The centre widens what
                comes in a narrow type; a link over a network sends and answers in that type.
            move: What to do with it.
            iteration: Iterations that this worker has completed.
            is_answered: Whether to return the centre.
        """

    def fetch(self) -> Tensor:
        """Return the centre, shape (P,)."""

    def shared(self) -> Tensor:
        """Return the centre's own memory, shape (P,), on the CPU: a change is seen by everybody.

        Raises:
            TrainerError: This worker runs on another host, or the centre is not shared.
        """


@dataclass(frozen=True)
class Start:
    """What a worker begins with.

    Attributes:
        attempt: Number of this start of the rank, from 1; a new one replaces those before.
        iteration: Iterations that the worker has behind it.
        parameters: Shape (P,).
        history: One tensor of shape (P,) per slot; none after a lost attempt, whose momentum is
            lost with it.
        extra: What the strategy itself has kept in a checkpoint, shape (P,) each.
        values: What else a worker has deposited there; None if it starts without.
    """

    attempt: int
    iteration: int
    parameters: Tensor
    history: Sequence[Tensor] = ()
    extra: Sequence[Tensor] = ()
    values: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Control:
    """What the driver wants of a worker.

    Attributes:
        stop: End after the current iteration.
        publish: Rank 0 of a synchronous run: publish after the next exchange.
        deposit: Rank 0 of a synchronous run: have all workers deposit their state then.
        extra: Iterations on top of the worker's share, taken over from a lost one; negative for
            one that the others have replaced.
    """

    stop: bool = False
    publish: bool = False
    deposit: bool = False
    extra: int = 0


Record = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a worker runs.

    Attributes:
        host: Name of the machine.
        pid: Process id there.
    """

    host: str
    pid: int

    @classmethod
    def here(cls) -> Place:
        """Return where this process runs."""
        return cls(socket.gethostname(), os.getpid())


@dataclass(frozen=True)
class Deposit:
    """What a worker has handed over for a checkpoint; see `DriverLink.deposit`.

    Attributes:
        parameters: Shape (P,).
        history: Shape (P,) per slot.
        extra: What the strategy keeps, shape (P,) each.
        values: JSON values.
    """

    parameters: Tensor
    history: Sequence[Tensor]
    extra: Sequence[Tensor]
    values: Mapping[str, Any]


class DriverLink(CenterLink, Protocol):
    """One worker's connection to the driver."""

    def start(self, place: Place) -> Start:
        """Register this worker, and fetch what it begins with."""

    def report(self, records: Sequence[Record]) -> Control:
        """Hand over measurements (JSON values) and learn what the driver wants."""

    def publish(self, iteration: int, parameters: Tensor, history: Sequence[Tensor]) -> None:
        """Hand over the state of a synchronous run after `iteration` iterations of all workers."""

    def deposit(self, iteration: int, values: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
        """Hand over all that this worker needs to go on from here, for a checkpoint.

        Args:
            iteration: Of the run, the same for all workers.
            values: JSON values.
            tensors: Shape (P,) each: the parameters, the histories, then what the strategy keeps.
        """

    def meet(self, tensor: Tensor) -> None:
        """Replace `tensor` by its mean over all workers, computed by the driver; see `Group`."""

    def finish(self) -> None:
        """Tell that this worker has done its work."""

    def fail(self, message: str, details: str, *, is_lost_peer: bool) -> None:
        """Tell why this worker ends; `is_lost_peer` if only because another one did."""
