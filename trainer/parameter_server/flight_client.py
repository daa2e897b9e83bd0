"""What every client of our services over Arrow Flight shares: token, deadline, and patience."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, final

import pyarrow as pa
from pyarrow import flight
from torch import Tensor

from trainer.errors import TrainerError
from trainer.parameter_server import wire
from trainer.parameter_server.flight_server import Address

T = TypeVar("T")

# A call that is lost on the way is made again; the service must take its repetition for one.
_TRIES = 3
_PAUSE_S = 1.0

_CHANNEL = [
    ("grpc.enable_http_proxy", 0),  # the service is near: no proxy of the environment's leads to it
    ("grpc.initial_reconnect_backoff_ms", 200),  # and may be back in a moment
    ("grpc.max_reconnect_backoff_ms", 1000),
]


@final
class FlightClient:
    """Makes calls to a `FlightService`. Not thread-safe.

    Args:
        address: The service.
        timeout_s: Deadline of every call.
        whose: Whose service it is, in the words of an error message.
        tries: How often a call is made, a second apart, while the service cannot be reached.

    Raises (every call):
        TrainerError: The service refuses, or does not answer in time.
    """

    def __init__(
        self,
        address: Address,
        timeout_s: float,
        whose: str = "the driver",
        tries: int = _TRIES,
    ) -> None:
        self._token, self._timeout_s, self._tries = address.token, timeout_s, tries
        self._where = f"{whose} at {address}"
        self._client = flight.connect(
            address.location, tls_root_certs=address.certificate, generic_options=_CHANNEL
        )

    def exchange(
        self, call: str, fields: Mapping[str, Any], tensors: Sequence[Tensor]
    ) -> tuple[dict[str, Any], Tensor]:
        """Make a call that carries tensors.

        Args:
            call: Its name.
            fields: JSON values.
            tensors: Flat; sent one after the other.

        Returns:
            JSON values, and all values of the tensors that came, flat.
        """
        descriptor = flight.FlightDescriptor.for_command(wire.encode({"call": call, **fields}))

        def once() -> tuple[dict[str, Any], Tensor]:
            writer, reader = self._client.do_exchange(descriptor, self._options())
            with writer:
                writer.begin(wire.SCHEMA)
                wire.send(writer, tensors)
                writer.done_writing()
                answer = wire.receive_message(reader)
                return answer, wire.receive(reader, answer["size"])

        return self._patiently(once)

    def act(self, call: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Make a call that carries JSON values only, and return those of the answer."""
        action = flight.Action(call, wire.encode(fields))

        def once() -> dict[str, Any]:
            (answer,) = self._client.do_action(action, self._options())
            return wire.decode(answer.body.to_pybytes())

        return self._patiently(once)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _options(self) -> Any:
        token = f"Bearer {self._token}".encode()
        return flight.FlightCallOptions(self._timeout_s, headers=[(b"authorization", token)])

    def _patiently(self, once: Callable[[], T]) -> T:
        reason = ""
        for _ in range(self._tries):
            try:
                return once()
            except flight.FlightUnavailableError as error:
                reason = _message(error)
                time.sleep(_PAUSE_S)
            except flight.FlightTimedOutError as error:
                raise TrainerError(
                    f"{self._where} did not answer in {self._timeout_s:g} s"
                ) from error
            except (pa.ArrowException, OSError) as error:
                raise TrainerError(_message(error)) from error
        raise TrainerError(
            f"{self._where} cannot be reached: it has ended, or the network is down ({reason})"
        )


def _message(error: Exception) -> str:
    """Return the service's own message, without gRPC's ornaments."""
    own: bytes = getattr(error, "extra_info", b"")
    return own.decode() or str(error).split(". Detail:")[0]
