"""A worker's connection to the driver and to the servers of the centre's ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import Control, DriverLink, Move, Place, Pull, Record, Start, Traffic
from trainer.parameter_server.address import Address
from trainer.parameter_server.books import Push
from trainer.parameter_server.moves import check_finite
from trainer.parameter_server.range_service import RangeClient


@dataclass(frozen=True)
class Ranges:
    """Where a centre is served; it travels to the workers.

    Attributes:
        addresses: One service per range.
        parts: The ranges, one after the other.
        is_bounded: The staleness has a limit, so that workers wait at the driver.
    """

    addresses: tuple[Address, ...]
    parts: tuple[slice, ...]
    is_bounded: bool


@final
class RangedLink:
    """A `DriverLink` whose exchanges go to all ranges at once, and are counted at the driver.

    A push is counted after all ranges have taken it, so that a worker that is lost halfway does it
    again. Where the staleness has a limit it is counted before, because it has to wait there; what
    others have counted and not yet brought to every range is then not seen, at most one update of
    each of them more than the limit says.

    Args:
        driver: Connection to the driver.
        ranges: Where the centre is.
        rank: This worker.
        timeout_s: Deadline of every call, and how long a server that is lost may take to come back.

    Raises (every method):
        TrainerError: The driver or a server refuses, or does not answer in time.
    """

    def __init__(self, driver: DriverLink, ranges: Ranges, rank: int, timeout_s: float) -> None:
        self._driver, self._ranges, self._rank = driver, ranges, rank
        self._attempt = self._sequence = 0
        self._clients = [
            RangeClient(address, number, timeout_s, patience_s=timeout_s)
            for number, address in enumerate(ranges.addresses)
        ]
        self._pool = ThreadPoolExecutor(len(self._clients), "range")

    @property
    def traffic(self) -> Traffic:
        """See `DriverLink.traffic`: of the driver's link and the servers'."""
        all_ = [self._driver.traffic, *(client.traffic for client in self._clients)]
        return Traffic(sum(each.sent for each in all_), sum(each.received for each in all_))

    def start(self, place: Place) -> Start:
        """See `DriverLink.start`."""
        start = self._driver.start(place)
        self._attempt, self._sequence = start.attempt, 0
        return start

    def exchange(
        self, sent: Tensor, move: Move, iteration: int, *, is_answered: bool = True
    ) -> Pull:
        """See `CenterLink.exchange`."""
        check_finite(sent, iteration)  # before a range takes its part of what another refuses
        self._sequence += 1
        push = Push(self._rank, self._attempt, self._sequence, iteration, move, is_answered)

        def count() -> int:
            nothing, counted = torch.empty(0), Move("count")
            return self._driver.exchange(
                nothing, counted, iteration, is_answered=is_answered
            ).staleness

        def send(client: RangeClient, part: slice) -> Tensor:
            return client.exchange(push, sent[part])

        staleness = count() if self._ranges.is_bounded else 0
        center = self._from_all(send).to(sent.device)
        return Pull(center, staleness if self._ranges.is_bounded else count())

    def fetch(self) -> Tensor:
        """See `CenterLink.fetch`."""
        self._driver.fetch()  # which notes that this worker has seen what there is
        return self._from_all(lambda client, _: client.fetch(self._rank, self._attempt))

    def shared(self) -> Tensor:
        """See `CenterLink.shared`."""
        raise TrainerError("the centre is served by processes of its own: exchange with it")

    def report(self, records: Sequence[Record]) -> Control:
        """See `DriverLink.report`."""
        return self._driver.report(records)

    def publish(self, iteration: int, parameters: Tensor, history: Sequence[Tensor]) -> None:
        """See `DriverLink.publish`."""
        self._driver.publish(iteration, parameters, history)

    def deposit(self, iteration: int, values: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
        """See `DriverLink.deposit`."""
        self._driver.deposit(iteration, values, tensors)

    def meet(self, tensor: Tensor) -> None:
        """See `DriverLink.meet`."""
        self._driver.meet(tensor)

    def finish(self) -> None:
        """See `DriverLink.finish`."""
        self._driver.finish()

    def fail(self, message: str, details: str, *, is_lost_peer: bool) -> None:
        """See `DriverLink.fail`."""
        self._driver.fail(message, details, is_lost_peer=is_lost_peer)

    def close(self) -> None:
        """Close the connections to the servers; not that to the driver."""
        self._pool.shutdown(wait=False, cancel_futures=True)  # a call may be waiting for a server
        for client in self._clients:
            client.close()

    def _from_all(self, call: Callable[[RangeClient, slice], Tensor]) -> Tensor:
        """Make a call to every server at once, and join what comes back."""
        calls = [
            self._pool.submit(call, client, part)
            for client, part in zip(self._clients, self._ranges.parts, strict=True)
        ]
        return torch.cat([each.result() for each in calls])
