"""What every service over Arrow Flight shares: its address, its token, and how it answers."""

from __future__ import annotations

import errno
import hmac
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pyarrow import flight
from torch import Tensor

from trainer.errors import TrainerError
from trainer.parameter_server import wire

# A call that carries tensors, given its command, and a reader and a writer of Flight's.
ExchangeCall = Callable[[dict[str, Any], Any, Any], None]
# A call that carries JSON values only.
ActionCall = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Address:
    """Where a service is, and the secret of its run.

    Attributes:
        host: Name or IP address.
        port: TCP port.
        token: Every call must show it.
    """

    host: str
    port: int
    token: str = field(repr=False)

    @property
    def location(self) -> str:
        """The address as Flight writes it."""
        return f"grpc+tcp://{self.host}:{self.port}"


class FlightService(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow is untyped
    """Answers calls by name. Use `serving`.

    Args:
        address: Where to listen, and the token to ask for.
        exchanges: Calls that carry tensors; each reads its own and answers by `answer`.
        actions: Calls that carry JSON values only.
    """

    def __init__(
        self,
        address: Address,
        exchanges: Mapping[str, ExchangeCall],
        actions: Mapping[str, ActionCall],
    ) -> None:
        super().__init__(address.location, middleware={"token": _TokenCheck(address.token)})
        self._exchanges, self._actions = exchanges, actions

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Run a call that carries tensors."""
        del context
        with _errors_as_flight():
            command = wire.decode(descriptor.command or b"")
            self._exchanges[command["call"]](command, reader, writer)

    def do_action(self, context: Any, action: Any) -> list[bytes]:
        """Run a call that carries only JSON values."""
        del context
        with _errors_as_flight():
            result = self._actions[action.type](wire.decode(action.body.to_pybytes()))
            return [wire.encode(result)]


@contextmanager
def serving(
    make: Callable[[Address], FlightService], host: str, port: int = 0
) -> Iterator[Address]:
    """Run a service on `host` and no other address while the context lasts.

    Args:
        make: Makes the service, which listens from then on. What its calls may wait for must have
            ended before the context does, because the context ends when all calls have.
        host: Address of this machine that its clients reach.
        port: Port to listen on; 0 for any free one.

    Raises:
        TrainerError: Nothing can listen there.
    """
    _check_bindable(host, port)
    token = secrets.token_urlsafe(32)
    try:
        service = make(Address(host, port, token))
    except flight.FlightError as error:
        raise TrainerError(f"the service cannot listen on {host}:{port}: {error}") from error
    try:
        yield Address(host, service.port, token)
    finally:
        service.shutdown()


def answer(writer: Any, message: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
    """Answer a call that carries tensors: a JSON message, and flat tensors one after the other."""
    writer.begin(wire.SCHEMA)
    size = sum(tensor.numel() for tensor in tensors)
    writer.write_metadata(wire.encode({**message, "size": size}))
    wire.send(writer, tensors)


def integer(command: Mapping[str, Any], name: str) -> int:
    """Return the whole number, from 0, in a command.

    Raises:
        TypeError: It is none; the caller is told so.
    """
    value = command[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise TypeError(f"{name}: expected a whole number; received {value!r}")
    return value


def _check_bindable(host: str, port: int) -> None:
    """Refuse an address for the reason that the system gives; Flight would not tell it."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        is_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        remedy = (
            "choose another port, or 0 for any free one"
            if is_port
            else "set SPARK_LOCAL_IP to an address of this machine that the workers reach"
        )
        raise TrainerError(
            f"the service cannot listen on {host}:{port} ({error.strerror}): {remedy}"
        ) from error


class _TokenCheck(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow is untyped
    """Refuses every call that does not show the token, before any of it is read."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._expected = f"Bearer {token}".encode()

    def start_call(self, info: Any, headers: dict[str, list[str]]) -> None:
        del info
        shown = headers.get("authorization", [""])[0]
        if not hmac.compare_digest(str(shown).encode(), self._expected):
            raise flight.FlightUnauthenticatedError("the token of this run is missing or wrong")


@contextmanager
def _errors_as_flight() -> Iterator[None]:
    """Send our errors whole, in `extra_info`, and a caller's mistakes by name."""
    try:
        yield
    except TrainerError as error:
        raise flight.FlightServerError(str(error), str(error).encode()) from error
    except (KeyError, TypeError, ValueError) as error:
        message = f"a call that this service does not understand: {error!r}"
        raise flight.FlightServerError(message, message.encode()) from error
