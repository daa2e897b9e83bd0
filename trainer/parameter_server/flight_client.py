"""What every client of our services over Arrow Flight shares: token, deadline, and patience."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, final

import pyarrow as pa
import torch
from pyarrow import flight
from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import PeerLostError, Traffic
from trainer.parameter_server import wire
from trainer.parameter_server.address import Address
from trainer.parameter_server.flight_server import PEER_LOST, VERSION_HEADER

T = TypeVar("T")

# A call that is lost on the way is made again; the service must take its repetition for one.
_PAUSE_S = 1.0

# The answer to a call without tensors is at hand, so this one is asked for again. After a network
# was cut, the server may have given up a connection of which the client still waits for something:
# what is sent over it then ends every call on it, and all are made again over a new one.
_AT_HAND_S = 15.0

_CHANNEL = [
    ("grpc.enable_http_proxy", 0),  # the service is near: no proxy of the environment's leads to it
    ("grpc.initial_reconnect_backoff_ms", 200),  # and may be back in a moment
    ("grpc.max_reconnect_backoff_ms", 1000),
]


@final
class FlightClient:
    """Makes calls to a `FlightService`. One thread at a time may make calls that carry tensors.

    Args:
        address: The service.
        timeout_s: Deadline of every call.
        whose: Whose service it is, in the words of an error message.
        patience_s: How long a service that cannot be reached is tried again.

    Raises (every call):
        TrainerError: The service refuses, or does not answer in time.
    """

    def __init__(
        self,
        address: Address,
        timeout_s: float,
        whose: str = "the driver",
        patience_s: float = 2.5,
    ) -> None:
        self._token, self._timeout_s = address.token, timeout_s
        self._patience_s = patience_s
        self._sent = self._received = 0
        self._where = f"{whose} at {address}"
        self._client = flight.connect(
            address.location,
            tls_root_certs=address.certificate,
            cert_chain=address.client_certificate or None,
            private_key=address.client_key or None,
            generic_options=_CHANNEL,
        )

    def exchange(
        self,
        call: str,
        fields: Mapping[str, Any],
        tensors: Sequence[Tensor],
        dtype: torch.dtype = torch.float32,
    ) -> tuple[dict[str, Any], Tensor]:
        """Make a call that carries tensors.

        Args:
            call: Its name.
            fields: JSON values.
            tensors: Flat; sent one after the other.
            dtype: In which they are sent, and come back.

        Returns:
            JSON values, and all values of the tensors that came, flat: as float64 where that was
            asked for, else as float32.
        """
        command = {"call": call, "dtype": wire.name_of(dtype), **fields}
        descriptor = flight.FlightDescriptor.for_command(wire.encode(command))

        def once() -> tuple[dict[str, Any], Tensor]:
            writer, reader = self._client.do_exchange(descriptor, self._options())
            with writer:
                writer.begin(wire.SCHEMAS[dtype])
                wire.send(writer, tensors, dtype)
                writer.done_writing()
                answer = wire.receive_message(reader)
                return answer, wire.receive(reader, answer["size"], dtype)

        answer, flat = self._patiently(once)
        self._sent += dtype.itemsize * sum(tensor.numel() for tensor in tensors)
        self._received += dtype.itemsize * flat.numel()
        return answer, flat

    def act(self, call: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Make a call that carries JSON values only, and return those of the answer."""
        action = flight.Action(call, wire.encode(fields))
        wait_s = min(self._timeout_s, _AT_HAND_S)
        waits = math.ceil(self._timeout_s / wait_s)

        def once() -> dict[str, Any]:
            for left in reversed(range(waits)):
                try:
                    (answer,) = self._client.do_action(action, self._options(wait_s))
                    break
                except flight.FlightTimedOutError:
                    if not left:
                        raise
            return wire.decode(answer.body.to_pybytes())

        return self._patiently(once)

    @property
    def traffic(self) -> Traffic:
        """Bytes of tensors that calls have carried so far, each call counted once."""
        return Traffic(self._sent, self._received)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _options(self, timeout_s: float | None = None) -> Any:
        token = f"Bearer {self._token}".encode()
        headers = [(b"authorization", token), (VERSION_HEADER, b"%d" % wire.VERSION)]
        return flight.FlightCallOptions(timeout_s or self._timeout_s, headers=headers)

    def _patiently(self, once: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return once()
            except flight.FlightUnavailableError as error:
                if time.monotonic() >= deadline:
                    raise TrainerError(
                        f"{self._where} cannot be reached: it has ended, or the network is down "
                        f"({_error(error)})"
                    ) from error
                time.sleep(_PAUSE_S)
            except flight.FlightTimedOutError as error:
                raise TrainerError(
                    f"{self._where} did not answer in {self._timeout_s:g} s"
                ) from error
            except (pa.ArrowException, OSError) as error:
                raise _error(error) from error


def _error(error: Exception) -> TrainerError:
    """Return the service's own error, or what Flight says without gRPC's ornaments."""
    own: bytes = getattr(error, "extra_info", b"")
    if not own:
        words = str(error).split(". Detail:")[0].split(". gRPC client debug context:")[0]
        return TrainerError(words.rpartition(", with message: ")[2])
    said = wire.decode(own)
    kind = PeerLostError if said["kind"] == PEER_LOST else TrainerError
    return kind(said["message"])
