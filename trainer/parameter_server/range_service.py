"""A range of the centre behind Arrow Flight, and the client of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, final

from torch import Tensor

from trainer.links import Traffic
from trainer.parameter_server import wire
from trainer.parameter_server.address import Address, Endpoint
from trainer.parameter_server.books import Push
from trainer.parameter_server.center_range import CenterRange
from trainer.parameter_server.flight_client import FlightClient
from trainer.parameter_server.flight_server import FlightService, answer, integer
from trainer.parameter_server.push_call import read_push


@final
class RangeService(FlightService):
    """Answers workers' calls about a range."""

    def __init__(self, served: CenterRange, endpoint: Endpoint) -> None:
        self._range = served
        super().__init__(
            endpoint,
            exchanges={"exchange": self._exchange, "fetch": self._fetch},
            actions={"ping": self._ping},
        )

    def _exchange(self, command: dict[str, Any], reader: Any, writer: Any) -> None:
        push = read_push(command)
        dtype = wire.dtype_of(command)
        sent = wire.receive(reader, self._range.size, dtype)
        answer(writer, {}, [self._range.exchange(push, sent)], dtype)

    def _fetch(self, command: dict[str, Any], reader: Any, writer: Any) -> None:
        wire.receive(reader, 0)
        rank, attempt = integer(command, "rank"), integer(command, "attempt")
        answer(writer, {}, [self._range.fetch(rank, attempt)])

    def _ping(self, command: dict[str, Any]) -> dict[str, Any]:
        return command


@final
class RangeClient:
    """Calls a `RangeService`. Not thread-safe.

    Args:
        address: The service.
        number: Which range it serves.
        timeout_s: Deadline of every call.
        patience_s: How long a service that cannot be reached is tried again.

    Raises (every method):
        TrainerError: The service refuses, or does not answer in time.
    """

    def __init__(self, address: Address, number: int, timeout_s: float, patience_s: float) -> None:
        whose = f"the server of range {number} of the centre"
        self._client = FlightClient(address, timeout_s, whose, patience_s)

    @property
    def traffic(self) -> Traffic:
        """Bytes of tensors that calls have carried so far."""
        return self._client.traffic

    def exchange(self, push: Push, sent: Tensor) -> Tensor:
        """Move the range; see `CenterRange.exchange`."""
        return self._client.exchange("exchange", asdict(push), [sent], sent.dtype)[1]

    def fetch(self, rank: int, attempt: int) -> Tensor:
        """Return the range."""
        return self._client.exchange("fetch", {"rank": rank, "attempt": attempt}, [])[1]

    def ping(self) -> None:
        """Return if the service answers."""
        self._client.act("ping", {})

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
