"""A service under attack, and clients that send what no worker of ours does."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
import torch
from desks import SIZE, make_desk
from pyarrow import flight

from trainer.links import Move, Place
from trainer.parameter_server import wire
from trainer.parameter_server.address import Address
from trainer.parameter_server.client import FlightLink
from trainer.parameter_server.desk import Desk
from trainer.parameter_server.service import serving

HOST = "127.0.0.1"
THERE = Place("there", 4711)
SCHEMA = wire.SCHEMAS[torch.float32]
PUSH: Mapping[str, Any] = {
    **{"call": "exchange", "dtype": "float32", "rank": 0, "attempt": 1},
    **{"sequence": 1, "iteration": 1, "is_answered": True},
    "move": {"rule": "elastic", "rate": 0.5},
}
WHO = {"rank": 0, "attempt": 1}
LOG = {"kind": "log", "level": 30, "message": "x"}
DONE = {"kind": "progress", "iteration": 5, "batch": 3, "loss": 0.5}


class Abyss:
    """Takes deposits, and keeps nothing."""

    wants_deposits = True

    def deposit(
        self, rank: int, iteration: int, values: Mapping[str, Any], chunks: Iterator[torch.Tensor]
    ) -> None:
        for _ in chunks:
            pass


@dataclass(frozen=True)
class Target:
    """A service under attack, and the desk behind it, at which worker 0 has started."""

    desk: Desk
    address: Address

    def check(self) -> None:
        """Check that nothing has happened to the run, and that a worker can go on."""
        assert self.desk.center.copy().tolist() == list(range(SIZE))
        assert self.desk.center.iterations == [0, 0]
        assert self.desk.take_records() == []
        assert self.desk.next_milestone(0) is None
        self.desk.center.check_attempt(0, 1)
        link = FlightLink(self.address, 1, timeout_s=20)
        assert link.start(THERE).parameters.tolist() == list(range(SIZE))
        assert link.exchange(torch.ones(SIZE), Move("elastic", 0.0), 0).staleness == 0
        link.report([])
        link.close()


@contextmanager
def attacked(*, encrypted: bool, host: str = HOST) -> Iterator[Target]:
    """Give a target, and check it after the attack."""
    desk = make_desk(depository=Abyss())
    with serving(desk, host, encrypted=encrypted) as address:
        desk.start(0, THERE)
        target = Target(desk, address)
        yield target
        target.check()


class Caller:
    """A client that sends what it is told, with the headers that it is told.

    Args:
        address: Of the service.
        token: To show; None for that of the run.
        version: To show.
    """

    def __init__(
        self, address: Address, token: str | None = None, version: str | None = str(wire.VERSION)
    ) -> None:
        self.deadline_s: float | None = 20
        shown = f"Bearer {address.token}" if token is None else token
        self.headers = [(b"authorization", shown.encode())] if shown else []
        self.headers += [(b"torrefy-protocol", version.encode())] if version else []
        self._client = flight.connect(
            address.location,
            tls_root_certs=address.certificate,
            cert_chain=address.client_certificate or None,
            private_key=address.client_key or None,
        )

    @property
    def options(self) -> Any:
        return flight.FlightCallOptions(self.deadline_s, headers=self.headers)

    def act(self, name: str, body: bytes) -> list[Any]:
        return list(self._client.do_action(flight.Action(name, body), self.options))

    def open(self, command: bytes) -> tuple[Any, Any]:
        descriptor = flight.FlightDescriptor.for_command(command)
        writer, reader = self._client.do_exchange(descriptor, self.options)
        return writer, reader

    def exchange(self, command: bytes, batches: Sequence[pa.RecordBatch]) -> None:
        writer, reader = self.open(command)
        with writer:
            writer.begin(batches[0].schema)
            for batch in batches:
                writer.write_batch(batch)
            writer.done_writing()
            while True:
                reader.read_chunk()

    def close(self) -> None:
        self._client.close()


def numbers(values: Sequence[float | None], kind: pa.DataType | None = None) -> pa.RecordBatch:
    return pa.record_batch([pa.array(values, kind or pa.float32())], schema=SCHEMA)


GOOD = numbers([5.0] * SIZE)


def refused(call: Callable[[], object], message: str) -> None:
    """Check that a call is refused in words for people."""
    with pytest.raises((pa.ArrowException, OSError)) as caught:
        call()
    own: bytes = getattr(caught.value, "extra_info", b"")
    words = json.loads(own)["message"] if own else str(caught.value)
    assert message in words
    assert "Traceback" not in str(caught.value) + words
