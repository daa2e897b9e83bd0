"""A worker's connection to the driver from another process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from trainer.links import Control, DriverLink, Move, Place, Pull, Record, Start, Traffic
from trainer.parameter_server.address import Address
from trainer.parameter_server.flight_client import FlightClient
from trainer.parameter_server.records import LONGEST_TEXT, portions
from trainer.parameter_server.shared import map_shared


@final
class FlightLink:
    """A `DriverLink` over Arrow Flight.

    One thread may report and another make the other calls.

    Args:
        address: The driver's service.
        rank: This worker.
        timeout_s: Deadline of every call.
        patience_s: How long a driver that cannot be reached is tried again.

    Raises (every method):
        TrainerError: The driver refuses, or does not answer in time.
    """

    def __init__(
        self, address: Address, rank: int, timeout_s: float, patience_s: float = 2.5
    ) -> None:
        self._client = FlightClient(address, timeout_s, patience_s=patience_s)
        self._rank = rank
        self._attempt = self._sequence = self._meetings = 0
        self._numbers = count(1)

    @property
    def traffic(self) -> Traffic:
        """See `DriverLink.traffic`."""
        return self._client.traffic

    def start(self, place: Place) -> Start:
        """See `DriverLink.start`."""
        answer, flat = self._exchange("start", {"place": asdict(place)}, [])
        self._attempt, slots = answer["attempt"], answer["history"]
        self._sequence = self._meetings = 0
        parameters, *more = flat.view(1 + slots + answer["extra"], -1)
        kept = more[:slots], more[slots:], answer["values"]
        return Start(self._attempt, answer["iteration"], parameters, *kept)

    def exchange(
        self, sent: Tensor, move: Move, iteration: int, *, is_answered: bool = True
    ) -> Pull:
        """See `CenterLink.exchange`."""
        self._sequence += 1
        fields = {
            **{"sequence": self._sequence, "iteration": iteration},
            **{"move": asdict(move), "is_answered": is_answered},
        }
        tensors, dtype = [sent] if sent.numel() else [], sent.dtype
        answer, center = self._exchange("exchange", fields, tensors, dtype)
        return Pull(center.to(sent.device), answer["staleness"])

    def fetch(self) -> Tensor:
        """See `CenterLink.fetch`."""
        return self._exchange("fetch", {}, [])[1]

    def shared(self) -> Tensor:
        """See `CenterLink.shared`."""
        answer = self._act("shared", {})
        return map_shared(Path(answer["path"]), answer["size"], answer["home"])

    def publish(self, iteration: int, parameters: Tensor, history: Sequence[Tensor]) -> None:
        """See `DriverLink.publish`."""
        fields = {"number": next(self._numbers), "iteration": iteration}
        self._exchange("publish", fields, [parameters, *history])

    def deposit(self, iteration: int, values: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
        """See `DriverLink.deposit`."""
        fields = {"iteration": iteration, "values": dict(values), "tensors": len(tensors)}
        self._exchange("deposit", fields, tensors)

    def meet(self, tensor: Tensor) -> None:
        """See `DriverLink.meet`."""
        self._meetings += 1
        fields, flat = {"number": self._meetings, "size": tensor.numel()}, tensor.reshape(-1)
        mean = self._exchange("meet", fields, [flat], tensor.dtype)[1]
        tensor.copy_(mean.view(tensor.shape))

    def report(self, records: Sequence[Record]) -> Control:
        """See `DriverLink.report`."""
        for portion in portions(records):
            fields = {"number": next(self._numbers), "records": portion}
            answer = self._act("report", fields)
        return Control(**answer)

    def finish(self) -> None:
        """See `DriverLink.finish`."""
        self._act("finish", {})

    def fail(self, message: str, details: str, *, is_lost_peer: bool) -> None:
        """See `DriverLink.fail`."""
        short = {"message": message[:LONGEST_TEXT], "details": details[-LONGEST_TEXT:]}
        self._act("fail", {**short, "is_lost_peer": is_lost_peer})

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _exchange(
        self,
        call: str,
        fields: Mapping[str, Any],
        tensors: Sequence[Tensor],
        dtype: torch.dtype = torch.float32,
    ) -> tuple[dict[str, Any], Tensor]:
        return self._client.exchange(call, {**self._identity, **fields}, tensors, dtype)

    def _act(self, call: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        return self._client.act(call, {**self._identity, **fields})

    @property
    def _identity(self) -> dict[str, Any]:
        return {"rank": self._rank, "attempt": self._attempt}


@final
class FlightGroup:
    """A `Group` whose workers average through the driver, over TLS if its service speaks it.

    Args:
        link: This worker's connection to the driver.
        size: Number of workers.

    Attributes:
        size: Number of workers.
    """

    def __init__(self, link: DriverLink, size: int) -> None:
        self._link, self.size = link, size

    @property
    def traffic(self) -> Traffic:
        """See `Group.traffic`."""
        return self._link.traffic

    def mean_(self, tensor: Tensor) -> None:
        """See `Group.mean_`. Two ranks give the same bits in any order; more may differ by one."""
        self._link.meet(tensor)
