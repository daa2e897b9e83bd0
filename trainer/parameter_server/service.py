"""The desk behind Arrow Flight, for workers in other processes."""

from __future__ import annotations

import errno
import hmac
import logging
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, final

from pyarrow import flight
from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import Move
from trainer.parameter_server import wire
from trainer.parameter_server.center import Push
from trainer.parameter_server.desk import Desk

logger = logging.getLogger(__name__)


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


@contextmanager
def serving(desk: Desk, host: str, port: int = 0) -> Iterator[Address]:
    """Serve `desk` on `host` and no other address while the context lasts.

    Args:
        desk: What is served.
        host: Address of this machine that workers reach.
        port: Port to listen on; 0 for any free one.

    Raises:
        TrainerError: Nothing can listen there.
    """
    _check_bindable(host, port)
    token = secrets.token_urlsafe(32)
    try:
        service = Service(desk, Address(host, port, token))
    except flight.FlightError as error:
        raise TrainerError(f"the service cannot listen on {host}:{port}: {error}") from error
    try:
        yield Address(host, service.port, token)
    finally:
        desk.close()
        service.shutdown()


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
            f"the driver's service cannot listen on {host}:{port} ({error.strerror}): {remedy}"
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


@final
class Service(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow is untyped
    """Answers workers' calls from a desk. Use `serving`."""

    def __init__(self, desk: Desk, address: Address) -> None:
        super().__init__(address.location, middleware={"token": _TokenCheck(address.token)})
        self._desk = desk
        self._exchanges: dict[str, Callable[[dict[str, Any], Any, Any], None]] = {
            "start": self._start,
            "exchange": self._exchange,
            "fetch": self._fetch,
            "publish": self._publish,
        }
        self._actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "report": self._report,
            "shared": self._shared,
            "finish": self._finish,
            "fail": self._fail,
        }

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
            answer = self._actions[action.type](wire.decode(action.body.to_pybytes()))
            return [wire.encode(answer)]

    def _start(self, command: dict[str, Any], reader: Any, writer: Any) -> None:
        wire.receive(reader, 0)
        start = self._desk.start(_integer(command, "rank"), str(command["host"]))
        tensors = [start.parameters, *start.history]
        answer = {"attempt": start.attempt, "iteration": start.iteration, "tensors": len(tensors)}
        _answer(writer, answer, tensors)

    def _exchange(self, command: dict[str, Any], reader: Any, writer: Any) -> None:
        rank, attempt = _integer(command, "rank"), _integer(command, "attempt")
        sequence, iteration = _integer(command, "sequence"), _integer(command, "iteration")
        move = Move(command["move"]["rule"], float(command["move"]["rate"]))
        push = Push(rank, attempt, sequence, iteration, move, bool(command["is_answered"]))
        size = 0 if move.rule == "count" else self._desk.center.size
        pull = self._desk.exchange(push, wire.receive(reader, size))
        _answer(writer, {"staleness": pull.staleness}, [pull.center])

    def _fetch(self, command: dict[str, Any], reader: Any, writer: Any) -> None:
        wire.receive(reader, 0)
        rank, attempt = _integer(command, "rank"), _integer(command, "attempt")
        _answer(writer, {}, [self._desk.center.fetch(rank, attempt)])

    def _shared(self, command: dict[str, Any]) -> dict[str, Any]:
        desk = self._desk
        desk.center.check_attempt(_integer(command, "rank"), _integer(command, "attempt"))
        return {
            "path": str(desk.shared or ""),
            "size": desk.center.memory.numel(),
            "home": desk.home,
        }

    def _publish(self, command: dict[str, Any], reader: Any, writer: Any) -> None:
        rank, attempt = _integer(command, "rank"), _integer(command, "attempt")
        tensors = 1 + self._desk.slots
        flat = wire.receive(reader, self._desk.center.size * tensors)
        parameters, *history = flat.view(tensors, -1)
        self._desk.publish(rank, attempt, _integer(command, "iteration"), parameters, history)
        _answer(writer, {}, [])

    def _report(self, command: dict[str, Any]) -> dict[str, Any]:
        records = [dict(record) for record in command["records"]]
        control = self._desk.report(
            _integer(command, "rank"), _integer(command, "attempt"), records
        )
        return asdict(control)

    def _finish(self, command: dict[str, Any]) -> dict[str, Any]:
        self._desk.finish(_integer(command, "rank"), _integer(command, "attempt"))
        return {}

    def _fail(self, command: dict[str, Any]) -> dict[str, Any]:
        self._desk.fail(
            _integer(command, "rank"),
            _integer(command, "attempt"),
            str(command["message"]),
            str(command["details"]),
            bool(command["is_lost_peer"]),
        )
        return {}


def _answer(writer: Any, message: dict[str, Any], tensors: Sequence[Tensor]) -> None:
    writer.begin(wire.SCHEMA)
    size = sum(tensor.numel() for tensor in tensors)
    writer.write_metadata(wire.encode(message | {"size": size}))
    wire.send(writer, tensors)


def _integer(command: dict[str, Any], name: str) -> int:
    value = command[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise TypeError(f"{name}: expected a whole number; received {value!r}")
    return value


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
