"""Where the values of a centre are: in the driver, or in the processes that serve its ranges."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, final

import torch
from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import Move
from trainer.parameter_server.center_file import CenterFile
from trainer.parameter_server.moves import Mover
from trainer.strategies.arithmetic import Layout
from trainer.strategies.base import CenterSettings


class Store(Protocol):
    """The values of a centre, as the driver sees them.

    Attributes:
        parameters: The centre itself, shape (P,).
        squares: Sums of squares, shape (P,) or (0,).
    """

    parameters: Tensor
    squares: Tensor

    @property
    def rules(self) -> Sequence[str]:
        """The moves that may come here."""

    def register(self, rank: int, attempt: int) -> None:
        """Note the attempt of a worker that may push from now on."""

    def exchange(self, move: Move, sent: Tensor, *, is_repeated: bool, is_answered: bool) -> Tensor:
        """See `Mover.exchange`."""

    def fetch(self) -> Tensor:
        """Return what a worker gets that wants the centre: (P,), or (0,) if it is elsewhere."""

    def copy(self, values: Tensor, into: Tensor | None = None) -> Tensor:
        """Return a copy of `parameters` or `squares`: `into`, or a new tensor."""


@final
class OwnStore:
    """The driver moves the centre itself, or its workers do, in memory that they map.

    Args:
        parameters: The centre, shape (P,).
        squares: Shape (P,) or (0,).
        layout: Which parts are weights.
        workers: K.
    """

    def __init__(self, parameters: Tensor, squares: Tensor, layout: Layout, workers: int) -> None:
        self.parameters, self.squares = parameters, squares
        self._mover = Mover(parameters, squares, layout, workers)
        self.rules, self.exchange = self._mover.rules, self._mover.exchange

    def register(self, rank: int, attempt: int) -> None:
        """See `Store.register`: nobody else has to know."""

    def fetch(self) -> Tensor:
        """See `Store.fetch`."""
        return self.parameters.clone()

    def copy(self, values: Tensor, into: Tensor | None = None) -> Tensor:
        """See `Store.copy`."""
        return values.clone() if into is None else into.copy_(values)


@final
class StillStore:
    """Nobody moves the centre: it is what workers begin with, and not even copied.

    Args:
        parameters: Shape (P,). They may change once all workers have begun.
    """

    rules = ()

    def __init__(self, parameters: Tensor) -> None:
        self.parameters, self.squares = parameters, torch.empty(0)

    def register(self, rank: int, attempt: int) -> None:
        """See `Store.register`: nobody else has to know."""

    def exchange(self, move: Move, sent: Tensor, *, is_repeated: bool, is_answered: bool) -> Tensor:
        """See `Store.exchange`: no move is among the rules, so none comes."""
        raise TrainerError("workers of this run exchange among themselves, and not with a centre")

    def fetch(self) -> Tensor:
        """See `Store.fetch`."""
        return self.parameters

    def copy(self, values: Tensor, into: Tensor | None = None) -> Tensor:
        """See `Store.copy`; instead of a new tensor it returns `values`, which do not change."""
        return values if into is None else into.copy_(values)


@final
class RangedStore:
    """Other processes move the centre, a range each: workers exchange with them, and count here.

    Args:
        file: Where all of them map it. Nobody serves it yet.
        wait_s: Longest wait for a range that is being moved.
    """

    rules = ("count",)

    def __init__(self, file: CenterFile, wait_s: float) -> None:
        self._file, self._wait_s, self._memory = file, wait_s, file.map()
        self.parameters, self.squares = self._memory.parameters, self._memory.squares
        self._memory.attempts[:] = 0  # a run that is submitted again counts anew
        self._memory.pushes[:] = 0

    def register(self, rank: int, attempt: int) -> None:
        """See `Store.register`: the servers refuse every other attempt from now on."""
        self._memory.attempts[rank] = attempt

    def exchange(self, move: Move, sent: Tensor, *, is_repeated: bool, is_answered: bool) -> Tensor:
        """See `Mover.exchange`: there is nothing to do but to count."""
        del move, sent, is_repeated, is_answered
        return torch.empty(0)

    def fetch(self) -> Tensor:
        """See `Store.fetch`."""
        return torch.empty(0)

    def copy(self, values: Tensor, into: Tensor | None = None) -> Tensor:
        """See `Store.copy`: of locked ranges each is whole, but one may be ahead of another.

        Raises:
            TrainerError: A range was not free in time.
        """
        result = torch.empty_like(values) if into is None else into
        if not values.numel():
            return result
        for number, part in enumerate(self._file.ranges):
            with self._reading(number):
                result[part] = values[part]
        return result

    def _reading(self, number: int) -> AbstractContextManager[None]:
        return (
            self._file.held(number, self._wait_s)
            if self._file.settings.is_locked
            else nullcontext()
        )


def open_store(
    parameters: Tensor,
    state: Sequence[Tensor],
    layout: Layout,
    workers: int,
    file: CenterFile | None,
    settings: CenterSettings,
    wait_s: float,
) -> Store:
    """Return a store that begins with the values given, which are copied unless it is still.

    Args:
        parameters: Shape (P,).
        state: What `Center.state` has given; empty for a new run.
        layout: Which parts are weights.
        workers: K.
        file: Of a centre that several processes map; None for one of this process alone.
        settings: What the strategy asks for.
        wait_s: Longest wait for another process.

    Raises:
        TrainerError: The state is of another strategy or net.
    """
    store: Store
    keeps_squares = settings.keeps_squares
    if settings.is_still:
        return StillStore(parameters)
    if file is None:
        squares = torch.zeros(parameters.numel() if keeps_squares else 0)
        store = OwnStore(torch.empty(parameters.shape), squares, layout, workers)
    elif file.servers:
        store = RangedStore(file, wait_s)
    else:
        memory = file.map()
        store = OwnStore(memory.parameters, memory.squares, layout, workers)
    store.parameters.copy_(parameters)
    expected = [tuple(store.squares.shape)] if keeps_squares else []
    received = [tuple(values.shape) for values in state]
    if received not in ([], expected):
        raise TrainerError(
            f"the centre's state: expected tensors of shape {expected}; received {received}: it is "
            "of another net or strategy"
        )
    store.squares.zero_()
    for values in state:
        store.squares.copy_(values)
    return store
