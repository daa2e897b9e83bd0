"""What every service over Arrow Flight shares: whom it lets in, and how it answers."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from pyarrow import flight
from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import PeerLostError
from trainer.parameter_server import wire
from trainer.parameter_server.address import Address, Endpoint, check_bindable, make_endpoint
from trainer.parameter_server.stalls import StallWatch

logger = logging.getLogger(__name__)

# Every call says in it which version of the protocol it is of; the first did not.
VERSION_HEADER = b"torrefy-protocol"
_METHODS = (flight.FlightMethod.DO_EXCHANGE, flight.FlightMethod.DO_ACTION)
# The kind of a `PeerLostError` on its way to the client.
PEER_LOST = "peer lost"
# Bytes of an error's message: all that gRPC says at the end of a call has room in 8 KiB.
_LONGEST_MESSAGE = 2000

# A call that carries tensors, given its command, and a reader and a writer of Flight's.
ExchangeCall = Callable[[dict[str, Any], Any, Any], None]
# A call that carries JSON values only.
ActionCall = Callable[[dict[str, Any]], dict[str, Any]]


class FlightService(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow is untyped
    """Answers calls by name. Use `serving`.

    Who does not show the token is refused before anything of a call is read that carries tensors;
    the body of any other call has been read by then, and Flight sets no limit to it. With TLS no
    such caller gets so far: it has no certificate.

    Args:
        endpoint: Where to listen, and by what to know friends.
        exchanges: Calls that carry tensors; each reads its own and answers by `answer`.
        actions: Calls that carry JSON values only.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        exchanges: Mapping[str, ExchangeCall],
        actions: Mapping[str, ActionCall],
    ) -> None:
        address = endpoint.address
        tls = {
            "tls_certificates": [(address.certificate, endpoint.key)],
            "verify_client": True,
            "root_certificates": address.client_certificate,
        }
        self._exchanges, self._actions, self._watch = exchanges, actions, StallWatch()
        super().__init__(
            address.location,
            middleware={"gate": _Gate(address.token)},
            **(tls if address.certificate else {}),
        )
        self._watch.start()

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Run a call that carries tensors."""
        watched = self._watch.watched(context.peer())
        with _errors_as_flight():
            command = wire.decode(descriptor.command or b"")
            self._exchanges[command["call"]](command, watched(reader), watched(writer))

    def do_action(self, context: Any, action: Any) -> list[bytes]:
        """Run a call that carries only JSON values."""
        del context
        with _errors_as_flight():
            result = self._actions[action.type](wire.decode(action.body.to_pybytes()))
            return [wire.encode(result)]

    def shutdown(self) -> None:
        """Take no more calls, and wait for the end of those under way."""
        self._watch.hasten()
        super().shutdown()
        self._watch.close()


@contextmanager
def serving(
    make: Callable[[Endpoint], FlightService], host: str, port: int = 0, *, encrypted: bool = False
) -> Iterator[Address]:
    """Run a service on `host` and no other address while the context lasts.

    Args:
        make: Makes the service, which listens from then on. What its calls may wait for must have
            ended before the context does, because the context ends when all calls have.
        host: Address of this machine that its clients reach.
        port: Port to listen on; 0 for any free one.
        encrypted: Speak TLS, with a certificate made for this service.

    Raises:
        TrainerError: Nothing can listen there, or there is no library to make certificates.
    """
    with running(make, make_endpoint(host, port, encrypted=encrypted)) as address:
        yield address


@contextmanager
def running(make: Callable[[Endpoint], FlightService], endpoint: Endpoint) -> Iterator[Address]:
    """Run a service at an endpoint that is given; see `serving`."""
    where = endpoint.address
    check_bindable(where.host, where.port)
    try:
        service = make(endpoint)
    except flight.FlightError as error:
        raise TrainerError(f"the service cannot listen on {where}: {error}") from error
    try:
        yield replace(where, port=service.port)
    finally:
        service.shutdown()


def answer(
    writer: Any,
    message: Mapping[str, Any],
    tensors: Sequence[Tensor],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Answer a call that carries tensors.

    Args:
        writer: Of Flight.
        message: JSON values.
        tensors: Flat; sent one after the other.
        dtype: In which; they are rounded to it.
    """
    writer.begin(wire.SCHEMAS[dtype])
    size = sum(tensor.numel() for tensor in tensors)
    writer.write_metadata(wire.encode({**message, "size": size}))
    wire.send(writer, tensors, dtype)


def integer(command: Mapping[str, Any], name: str, *, least: int = 0) -> int:
    """Return a whole number in a command.

    Args:
        command: The command, or a part of it.
        name: Of the field.
        least: Smallest number that is allowed.

    Raises:
        TypeError: It is none; the caller is told so.
    """
    value = command[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 1 << 53:
        raise TypeError(f"{name}: expected a whole number; received {value!r}")
    return value


def number(command: Mapping[str, Any], name: str) -> float:
    """Return a number in a command; see `integer`."""
    value = command[name]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number; received {value!r}")
    return float(value)


def truth(command: Mapping[str, Any], name: str) -> bool:
    """Return whether something is so that a command says; see `integer`."""
    value = command[name]
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected true or false; received {value!r}")
    return value


class _Gate(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow is untyped
    """Refuses calls without the token, of another version, or of Flight's other kinds.

    That is before a call's tensors are read.
    """

    def __init__(self, token: str) -> None:
        super().__init__()
        self._expected = f"Bearer {token}".encode()

    def start_call(self, info: Any, headers: dict[str, list[str]]) -> None:
        shown = headers.get("authorization", [""])[0]
        if not hmac.compare_digest(str(shown).encode(), self._expected):
            raise flight.FlightUnauthenticatedError("the token of this run is missing or wrong")
        version = headers.get(VERSION_HEADER.decode(), ["1"])[0]
        if version != str(wire.VERSION):
            raise flight.FlightServerError(
                f"the service speaks version {wire.VERSION} of torrefy's protocol, the caller "
                f"version {str(version)[:20]}: install the same torrefy on the driver and on all "
                "executors"
            )
        if info.method not in _METHODS:
            raise flight.FlightServerError("there is no such call here: only actions and exchanges")


@contextmanager
def _errors_as_flight() -> Iterator[None]:
    """Send our errors whole, in `extra_info`, and a caller's mistakes by name."""
    try:
        yield
    except flight.FlightError:  # the caller has gone
        raise
    except TrainerError as error:
        raise _as_flight(str(error), error) from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        message = f"a call that this service does not understand: {error!r}"
        raise _as_flight(message, error) from error
    except OSError as error:  # as Arrow calls it when the caller has gone
        raise _as_flight(f"the call broke off: {error}", error) from error
    except Exception as error:
        logger.exception("A call failed")
        raise _as_flight(f"an error in the service, see its log: {error!r}", error) from error


def _as_flight(message: str, error: Exception) -> Any:
    """Return what Flight sends: the message, and the kind of the error if its catchers ask."""
    raw = message.encode(errors="replace")[:_LONGEST_MESSAGE]
    short = raw.decode(errors="ignore")
    kind = PEER_LOST if isinstance(error, PeerLostError) else ""
    details = json.dumps({"message": short, "kind": kind}, ensure_ascii=False)
    return flight.FlightServerError(short[: _LONGEST_MESSAGE // 8], details.encode())
