"""The desk behind Arrow Flight, for workers in other processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import Any, final

import torch
from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import Place
from trainer.parameter_server import flight_server, wire
from trainer.parameter_server.address import Address, Endpoint
from trainer.parameter_server.desk import Desk
from trainer.parameter_server.flight_server import FlightService, answer, integer, truth
from trainer.parameter_server.moves import check_finite
from trainer.parameter_server.push_call import read_push
from trainer.parameter_server.records import read_records

# Values that workers may average beside those of the net: how far they are.
_FIGURES = 64

# Values of a tensor of which only one is received at a time, and how long the others wait for it.
_LARGE, _ROOM_S = 1 << 24, 5.0


@contextmanager
def serving(desk: Desk, host: str, port: int = 0, *, encrypted: bool = False) -> Iterator[Address]:
    """Serve `desk` on `host` and no other address while the context lasts.

    Args:
        desk: What is served; closed at the end.
        host: Address of this machine that workers reach.
        port: Port to listen on; 0 for any free one.
        encrypted: Speak TLS.

    Raises:
        TrainerError: Nothing can listen there.
    """

    def make(endpoint: Endpoint) -> Service:
        return Service(desk, endpoint)

    with (
        flight_server.serving(make, host, port, encrypted=encrypted) as address,
        closing(desk),
    ):
        yield address


@final
class Service(FlightService):
    """Answers workers' calls from a desk. Use `serving`."""

    def __init__(self, desk: Desk, endpoint: Endpoint) -> None:
        self._desk = desk
        self._lock, self._large = threading.Lock(), threading.Lock()
        self._latest: dict[tuple[str, int], tuple[int, int]] = {}
        super().__init__(
            endpoint,
            exchanges={
                "start": self._start,
                "exchange": self._exchange,
                "fetch": self._fetch,
                "publish": self._publish,
                "deposit": self._deposit,
                "meet": self._meet,
            },
            actions={
                "report": self._report,
                "shared": self._shared,
                "finish": self._finish,
                "fail": self._fail,
            },
        )

    def _start(self, command: dict[str, Any], reader: Any, writer: Any) -> None:
        wire.receive(reader, 0)
        where = command["place"]
        place = Place(str(where["host"]), integer(where, "pid"))
        start = self._desk.start(integer(command, "rank"), place)
        message = {
            "attempt": start.attempt,
            "iteration": start.iteration,
            "history": len(start.history),
            "extra": len(start.extra),
            "values": start.values,
        }
        answer(writer, message, [start.parameters, *start.history, *start.extra])

    def _exchange(self, command: dict[str, Any], reader: Any, writer: Any) -> None:
        push, dtype = read_push(command), wire.dtype_of(command)
        size = 0 if push.move.rule == "count" else self._desk.center.size
        with self._room():
            pull = self._desk.exchange(push, wire.receive(reader, size, dtype))
        answer(writer, {"staleness": pull.staleness}, [pull.center], dtype)

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Let one large exchange at a time into memory, if none holds up the others.

        Where a push may have to wait for another worker's, all are let in.
        """
        if self._desk.center.size < _LARGE or self._desk.settings.max_staleness is not None:
            yield
            return
        has_room = self._large.acquire(timeout=_ROOM_S)
        try:
            yield
        finally:
            if has_room:
                self._large.release()

    def _fetch(self, command: dict[str, Any], reader: Any, writer: Any) -> None:
        wire.receive(reader, 0)
        rank, attempt = integer(command, "rank"), integer(command, "attempt")
        answer(writer, {}, [self._desk.center.fetch(rank, attempt)])

    def _shared(self, command: dict[str, Any]) -> dict[str, Any]:
        desk = self._desk
        desk.center.check_attempt(integer(command, "rank"), integer(command, "attempt"))
        return {
            "path": desk.file.path if desk.file else "",
            "size": desk.center.memory.numel(),
            "home": desk.home,
        }

    def _publish(self, command: dict[str, Any], reader: Any, writer: Any) -> None:
        rank, attempt = integer(command, "rank"), integer(command, "attempt")
        tensors = 1 + self._desk.slots
        parts = wire.receive_parts(reader, self._desk.center.size * tensors)
        if self._is_new("publish", command, is_noted=False):
            self._desk.wait_for_driver()
            flat = wire.joined(parts, self._desk.center.size * tensors, torch.float32)
            parameters, *history = flat.view(tensors, -1)
            del flat
            if self._is_new("publish", command):
                iteration = integer(command, "iteration")
                self._desk.publish(rank, attempt, iteration, parameters, history)
        for _ in parts:  # of a call that was made again
            pass
        answer(writer, {}, [])

    def _deposit(self, command: dict[str, Any], reader: Any, writer: Any) -> None:
        rank, attempt = integer(command, "rank"), integer(command, "attempt")
        iteration, count = integer(command, "iteration"), integer(command, "tensors")
        values = dict(command["values"])
        parts = wire.receive_parts(reader, count * self._desk.center.size)
        finite = _finite(parts, iteration)
        self._desk.deposit(rank, attempt, iteration, values, finite)
        for _ in finite:  # so that what came is checked whole
            pass
        answer(writer, {}, [])

    def _meet(self, command: dict[str, Any], reader: Any, writer: Any) -> None:
        rank, attempt = integer(command, "rank"), integer(command, "attempt")
        size, dtype, center = integer(command, "size"), wire.dtype_of(command), self._desk.center
        center.check_attempt(rank, attempt)
        if size > center.size + _FIGURES:
            raise TrainerError(f"expected at most {center.size} values; received {size}")

        parts = _finite(wire.receive_parts(reader, size, dtype), center.iterations[rank])

        def bring() -> Tensor:
            return wire.joined(parts, size, dtype)

        mean = self._desk.meeting.meet(rank, attempt, integer(command, "number"), bring)
        for _ in parts:  # of a call that was made again
            pass
        answer(writer, {}, [mean], dtype)

    def _report(self, command: dict[str, Any]) -> dict[str, Any]:
        records = read_records(command["records"])
        new = records if self._is_new("report", command) else []
        control = self._desk.report(integer(command, "rank"), integer(command, "attempt"), new)
        return asdict(control)

    def _is_new(self, call: str, command: dict[str, Any], *, is_noted: bool = True) -> bool:
        """Return whether a call has not been made before: its answer may have been lost."""
        rank, attempt = integer(command, "rank"), integer(command, "attempt")
        number = integer(command, "number")
        self._desk.center.check_attempt(rank, attempt)
        with self._lock:
            is_new = (attempt, number) > self._latest.get((call, rank), (0, 0))
            if is_new and is_noted:
                self._latest[call, rank] = attempt, number
            return is_new

    def _finish(self, command: dict[str, Any]) -> dict[str, Any]:
        self._desk.finish(integer(command, "rank"), integer(command, "attempt"))
        return {}

    def _fail(self, command: dict[str, Any]) -> dict[str, Any]:
        self._desk.fail(
            integer(command, "rank"),
            integer(command, "attempt"),
            str(command["message"]),
            str(command["details"]),
            truth(command, "is_lost_peer"),
        )
        return {}


def _finite(parts: Iterator[Tensor], iteration: int) -> Iterator[Tensor]:
    for part in parts:
        check_finite(part, iteration)
        yield part
