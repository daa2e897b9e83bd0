"""A worker's connection to the driver from another process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, final

import pyarrow as pa
from pyarrow import flight
from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import Control, Move, Pull, Record, Start
from trainer.parameter_server import wire
from trainer.parameter_server.service import Address
from trainer.parameter_server.shared import map_shared

T = TypeVar("T")

# A call that is lost on the way is made again; its sequence number keeps a push from counting
# twice.
_TRIES = 3
_PAUSE_S = 1.0


@final
class FlightLink:
    """A `DriverLink` over Arrow Flight. Not thread-safe.

    Args:
        address: The driver's service.
        rank: This worker.
        timeout_s: Deadline of every call.

    Raises (every method):
        TrainerError: The driver refuses, or does not answer in time.
    """

    def __init__(self, address: Address, rank: int, timeout_s: float) -> None:
        self._address, self._rank, self._timeout_s = address, rank, timeout_s
        self._client = flight.connect(address.location)
        self._attempt = self._sequence = 0

    def start(self, host: str) -> Start:
        """See `DriverLink.start`."""
        answer, flat = self._exchange("start", {"host": host}, [])
        self._attempt = answer["attempt"]
        parameters, *history = flat.view(answer["tensors"], -1)
        return Start(self._attempt, answer["iteration"], parameters, history)

    def exchange(
        self, sent: Tensor, move: Move, iteration: int, *, is_answered: bool = True
    ) -> Pull:
        """See `CenterLink.exchange`."""
        self._sequence += 1
        fields = {
            **{"sequence": self._sequence, "iteration": iteration},
            **{"move": asdict(move), "is_answered": is_answered},
        }
        answer, center = self._exchange("exchange", fields, [sent] if sent.numel() else [])
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
        self._exchange("publish", {"iteration": iteration}, [parameters, *history])

    def report(self, records: Sequence[Record]) -> Control:
        """See `DriverLink.report`."""
        answer = self._act("report", {"records": [dict(record) for record in records]})
        return Control(**answer)

    def finish(self) -> None:
        """See `DriverLink.finish`."""
        self._act("finish", {})

    def fail(self, message: str, details: str, *, is_lost_peer: bool) -> None:
        """See `DriverLink.fail`."""
        self._act("fail", {"message": message, "details": details, "is_lost_peer": is_lost_peer})

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _exchange(
        self, call: str, fields: Mapping[str, Any], tensors: Sequence[Tensor]
    ) -> tuple[dict[str, Any], Tensor]:
        """Make a call that carries tensors."""
        command = wire.encode({"call": call, **self._identity, **fields})
        descriptor = flight.FlightDescriptor.for_command(command)

        def once() -> tuple[dict[str, Any], Tensor]:
            writer, reader = self._client.do_exchange(descriptor, self._options())
            with writer:
                writer.begin(wire.SCHEMA)
                wire.send(writer, tensors)
                writer.done_writing()
                answer = wire.receive_message(reader)
                return answer, wire.receive(reader, answer["size"])

        return self._patiently(once)

    def _act(self, call: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Make a call that carries JSON values only."""
        action = flight.Action(call, wire.encode({**self._identity, **fields}))

        def once() -> dict[str, Any]:
            (answer,) = self._client.do_action(action, self._options())
            return wire.decode(answer.body.to_pybytes())

        return self._patiently(once)

    @property
    def _identity(self) -> dict[str, Any]:
        return {"rank": self._rank, "attempt": self._attempt}

    def _options(self) -> Any:
        token = f"Bearer {self._address.token}".encode()
        return flight.FlightCallOptions(self._timeout_s, headers=[(b"authorization", token)])

    def _patiently(self, once: Callable[[], T]) -> T:
        where = f"the driver at {self._address.host}:{self._address.port}"
        for _ in range(_TRIES):
            try:
                return once()
            except flight.FlightUnavailableError:
                time.sleep(_PAUSE_S)
            except flight.FlightTimedOutError as error:
                raise TrainerError(f"{where} did not answer in {self._timeout_s:g} s") from error
            except (pa.ArrowException, OSError) as error:
                raise TrainerError(_message(error)) from error
        raise TrainerError(f"{where} cannot be reached: it has ended, or the network is down")


def _message(error: Exception) -> str:
    """Return the service's own message, without gRPC's ornaments."""
    own: bytes = getattr(error, "extra_info", b"")
    return own.decode() or str(error).split(". Detail:")[0]
