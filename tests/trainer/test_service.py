"""The desk, and the same desk behind Arrow Flight: what it gives, waits for, and refuses."""

import dataclasses
import json
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pyarrow as pa
import pytest
import torch
from desks import SIZE, make_desk
from pyarrow import flight

from trainer.errors import TrainerError
from trainer.links import Control, Move, Place
from trainer.parameter_server import wire
from trainer.parameter_server.address import Address
from trainer.parameter_server.center_file import center_file
from trainer.parameter_server.client import FlightLink
from trainer.parameter_server.desk import Desk
from trainer.parameter_server.flight_server import VERSION_HEADER
from trainer.parameter_server.service import serving
from trainer.strategies import CenterSettings
from trainer.strategies.arithmetic import Layout

HOST = "127.0.0.1"
THERE = Place("there", 4711)
PROGRESS = {"kind": "progress", "iteration": 5, "batch": 3, "loss": 0.5}


@pytest.fixture
def desk() -> Desk:
    return make_desk()


@pytest.fixture
def address(desk: Desk) -> Iterator[Address]:
    with serving(desk, HOST) as address:
        yield address


@pytest.fixture
def link(address: Address) -> Iterator[FlightLink]:
    link = FlightLink(address, 0, timeout_s=20)
    yield link
    link.close()


def test_worker_starts_with_parameters_and_history(link: FlightLink) -> None:
    start = link.start(THERE)
    assert (start.attempt, start.iteration) == (1, 0)
    assert start.parameters.tolist() == list(range(SIZE))
    assert [slot.tolist() for slot in start.history] == [[1.0] * SIZE]


def test_later_attempt_starts_with_the_centre_and_without_momentum(
    link: FlightLink, caplog: pytest.LogCaptureFixture
) -> None:
    link.start(THERE)
    link.exchange(torch.zeros(SIZE), Move("elastic", 1.0), 10)
    link.fail("the disk broke", "traceback", is_lost_peer=False)
    start = link.start(Place("elsewhere", 4712))
    assert (start.attempt, start.iteration, list(start.history)) == (2, 10, [])
    assert start.parameters.tolist() == [0] * SIZE
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "Worker 0 was lost (the disk broke); attempt 2" in record.getMessage()


def test_exchange_crosses_the_wire_exactly(desk: Desk, link: FlightLink) -> None:
    link.start(THERE)
    values = torch.tensor([0.1, -3e-38, 1e38, 5.0, 1 / 3, 0.0, -0.0])
    pull = link.exchange(values, Move("elastic", 1.0), 10)
    assert pull.center.tolist() == list(range(SIZE))
    assert torch.equal(desk.center.copy(), values)


def test_steps_fetches_and_counts_cross_the_wire(desk: Desk, link: FlightLink) -> None:
    link.start(THERE)
    pull = link.exchange(torch.ones(SIZE), Move("subtract", 2.0), 10)
    assert pull.center.tolist() == [value - 2 for value in range(SIZE)]
    pull = link.exchange(torch.ones(SIZE), Move("subtract"), 11, is_answered=False)
    assert pull.center.shape == (0,)
    assert link.fetch().tolist() == [value - 3 for value in range(SIZE)]
    assert link.exchange(torch.empty(0), Move("count"), 15, is_answered=False).staleness == 0
    assert desk.center.worker_iterations == 15
    with pytest.raises(TrainerError, match="not shared"):
        link.shared()


def test_shared_centre_is_the_same_memory_for_driver_and_worker() -> None:
    settings = CenterSettings(is_locked=False, is_shared=True)
    layout = Layout((slice(0, SIZE),), ())
    with center_file(SIZE, layout, settings, workers=2, servers=0) as file:
        desk = make_desk(settings=settings, file=file)
        with serving(desk, HOST) as address:
            link = FlightLink(address, 0, timeout_s=20)
            link.start(THERE)
            link.shared()[3] = 99
            link.close()
        assert desk.center.copy().tolist() == [0, 1, 2, 99, 4, 5, 6]


def test_tensors_longer_than_a_chunk_arrive_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_CHUNK", 10)
    desk = make_desk(size=37)
    with serving(desk, HOST) as address:
        link = FlightLink(address, 1, timeout_s=20)
        assert link.start(THERE).parameters.tolist() == list(range(37))
        link.exchange(torch.arange(37).float() * 2, Move("elastic", 1.0), 10)
        link.close()
    assert desk.center.copy().tolist() == list(range(0, 74, 2))


def test_reports_arrive_with_the_rank_and_answers_carry_wishes(
    desk: Desk, link: FlightLink
) -> None:
    link.start(THERE)
    assert link.report([PROGRESS | {"rank": 7}]) == Control()
    assert desk.take_records() == [PROGRESS | {"rank": 0}]
    assert desk.take_records() == []
    desk.request_publication()
    desk.request_stop()
    assert link.report([]) == Control(stop=True, publish=True)


def test_publication_reaches_the_driver_and_ends_the_wish(desk: Desk, link: FlightLink) -> None:
    link.start(THERE)
    desk.request_publication()
    link.publish(40, torch.full((SIZE,), 3.0), [torch.full((SIZE,), 4.0)])
    milestone = desk.next_milestone(0)
    assert milestone is not None
    assert milestone.iteration == 40
    assert milestone.parameters.tolist() == [3.0] * SIZE
    assert [slot.tolist() for slot in milestone.history] == [[4.0] * SIZE]
    assert link.report([]) == Control()
    assert desk.next_milestone(0) is None


def test_exchange_that_passes_a_milestone_leaves_a_copy_of_the_centre(
    desk: Desk, link: FlightLink
) -> None:
    link.start(THERE)
    link.exchange(torch.zeros(SIZE), Move("elastic", 1.0), 10)
    assert desk.next_milestone(0) is None
    link.exchange(torch.ones(SIZE), Move("elastic", 1.0), 25)
    link.exchange(torch.zeros(SIZE), Move("elastic", 1.0), 30)
    milestone = desk.next_milestone(0)
    assert milestone is not None
    assert (milestone.iteration, milestone.parameters.tolist()) == (25, [1.0] * SIZE)


def test_workers_wait_for_a_driver_that_is_behind_and_say_so() -> None:
    desk = make_desk(wait_timeout_s=0.05)
    with serving(desk, HOST) as address, closing(FlightLink(address, 0, timeout_s=20)) as link:
        link.start(THERE)
        link.publish(20, torch.ones(SIZE), [torch.ones(SIZE)])
        with pytest.raises(TrainerError, match="driver has been testing for more than"):
            link.publish(40, torch.ones(SIZE), [torch.ones(SIZE)])


def test_call_lost_on_the_way_is_made_again(
    desk: Desk, link: FlightLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer is lost after the push was applied: it must not be applied twice."""
    link.start(THERE)
    monkeypatch.setattr("trainer.parameter_server.flight_client._PAUSE_S", 0.0)
    receive, answers = wire.receive_message, []

    def lose_first(reader: Any) -> dict[str, Any]:
        answers.append(receive(reader))
        if len(answers) == 1:
            raise flight.FlightUnavailableError("cut")
        return answers[-1]

    monkeypatch.setattr(wire, "receive_message", lose_first)
    link.exchange(torch.zeros(SIZE), Move("elastic", 0.5), 10)
    assert len(answers) == 2
    assert desk.center.copy().tolist() == [value / 2 for value in range(SIZE)]


# What no worker of ours sends.

BAD_CALLS: list[tuple[Callable[[FlightLink], object], str]] = [
    (
        lambda link: link.exchange(torch.ones(SIZE + 1), Move("elastic", 0.5), 10),
        "expected 7 values; received more",
    ),
    (
        lambda link: link.exchange(torch.ones(SIZE - 1), Move("elastic", 0.5), 10),
        "expected 7 values; received 6",
    ),
    (
        lambda link: link.exchange(torch.full((SIZE,), float("nan")), Move("elastic", 0.5), 10),
        "diverges",
    ),
    (
        lambda link: link.exchange(torch.ones(SIZE), Move("elastic", 7.0), 10),
        "expected a rate of 0 to 1",
    ),
    (lambda link: link.exchange(torch.ones(SIZE), Move("count"), 10), "received more"),
    (lambda link: link.exchange(torch.ones(SIZE), Move("eval(1)"), 10), "a move of elastic"),
    (lambda link: link.publish(5, torch.ones(SIZE), []), "expected 14 values; received 7"),
    (lambda link: link._act("explode", {}), "does not understand: KeyError"),
    (lambda link: link._exchange("explode", {}, []), "does not understand: KeyError"),
    (lambda link: link._exchange("exchange", {"sequence": 1}, []), "KeyError..iteration"),
    (lambda link: link._act("finish", {"rank": "0"}), "expected a whole number; received '0'"),
    (lambda link: link._act("finish", {"rank": True}), "expected a whole number"),
    (lambda link: link._act("finish", {"rank": 10**30}), "expected a whole number"),
    (lambda link: link._act("finish", {"attempt": 9}), "attempt 1 is the current one"),
]


@pytest.mark.parametrize(("call", "message"), BAD_CALLS)
def test_bad_calls_are_refused_and_change_nothing(
    desk: Desk, link: FlightLink, call: Callable[[FlightLink], object], message: str
) -> None:
    link.start(THERE)
    with pytest.raises(TrainerError, match=message):
        call(link)
    assert desk.center.copy().tolist() == list(range(SIZE))
    assert desk.next_milestone(0) is None
    assert link.exchange(torch.zeros(SIZE), Move("elastic", 0.0), 20).staleness == 0


@pytest.mark.parametrize("token", ["", "wrong"])
def test_calls_without_the_token_are_refused(desk: Desk, address: Address, token: str) -> None:
    link = FlightLink(dataclasses.replace(address, token=token), 0, timeout_s=20)
    for call in (lambda: link.start(THERE), lambda: link.report([])):
        with pytest.raises(TrainerError, match="token of this run is missing or wrong"):
            call()
    link.close()
    assert desk.center.register(0) == (1, 0)


@pytest.mark.parametrize("action", ["list", "flights", "get"])
def test_nothing_is_open_without_a_token(address: Address, action: str) -> None:
    client = flight.connect(address.location)
    calls: dict[str, Callable[[], object]] = {
        "list": lambda: list(client.list_actions()),
        "flights": lambda: list(client.list_flights()),
        "get": lambda: client.do_get(flight.Ticket(b"x")).read_all(),
    }
    with pytest.raises(flight.FlightUnauthenticatedError):
        calls[action]()
    client.close()


def exchange_raw(address: Address, command: bytes, batch: pa.RecordBatch) -> None:
    """Send a command and a batch as a client of its own would."""
    headers = [(b"authorization", f"Bearer {address.token}".encode()), (VERSION_HEADER, b"2")]
    options = flight.FlightCallOptions(20, headers=headers)
    with flight.connect(address.location) as client:
        descriptor = flight.FlightDescriptor.for_command(command)
        writer, reader = client.do_exchange(descriptor, options)
        with writer:
            writer.begin(batch.schema)
            writer.write_batch(batch)
            writer.done_writing()
            reader.read_chunk()


NULLS = pa.record_batch([pa.array([1.0, None], pa.float32())], schema=wire.SCHEMAS[torch.float32])
STRINGS = pa.record_batch([pa.array(["a", "b"])], names=["values"])
PUSH = json.dumps(
    {"call": "exchange", "rank": 0, "attempt": 1, "sequence": 1, "iteration": 1}
    | {"move": {"rule": "elastic", "rate": 0.5}, "is_answered": True, "dtype": "float32"}
).encode()


@pytest.mark.parametrize(
    ("command", "batch", "message"),
    [
        (b"\x80\x04garbage", STRINGS, "not JSON"),
        (b"[" * 100_000, STRINGS, "not JSON"),
        (b"[1]", STRINGS, "not a JSON object"),
        (PUSH, STRINGS, "expected a stream of float32 values"),
        (PUSH, NULLS, "nulls"),
    ],
)
def test_garbage_is_refused(
    desk: Desk, address: Address, command: bytes, batch: pa.RecordBatch, message: str
) -> None:
    desk.start(0, THERE)
    with pytest.raises(flight.FlightServerError, match=message):
        exchange_raw(address, command, batch)
    assert desk.center.copy().tolist() == list(range(SIZE))


def test_bytes_that_are_no_call_at_all_do_no_harm(link: FlightLink, address: Address) -> None:
    with socket.create_connection((address.host, address.port), timeout=20) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(1000))
    assert link.start(THERE).attempt == 1


def test_token_is_not_shown_by_accident(address: Address) -> None:
    assert address.token not in repr(address)


def test_port_in_use_is_named(desk: Desk, address: Address) -> None:
    message = f"cannot listen on {HOST}:{address.port} .*in use.*: choose another port"
    with pytest.raises(TrainerError, match=message), serving(desk, HOST, address.port):
        pass


def test_address_of_another_machine_is_named(desk: Desk) -> None:
    with (
        pytest.raises(TrainerError, match=r"192\.0\.2\.1.*SPARK_LOCAL_IP"),
        serving(desk, "192.0.2.1"),
    ):
        pass


def test_driver_that_has_ended_is_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.parameter_server.flight_client._PAUSE_S", 0.0)
    with serving(desk, HOST) as address:
        link = FlightLink(address, 0, timeout_s=20)
        link.start(THERE)
    with pytest.raises(TrainerError, match=f"{HOST}:{address.port} cannot be reached"):
        link.report([])
    link.close()


def test_driver_that_does_not_answer_is_named(desk: Desk) -> None:
    desk.start(1, THERE)
    desk.publish(1, 1, 20, torch.ones(SIZE), [])
    with serving(desk, HOST) as address:
        link = FlightLink(address, 0, timeout_s=0.3)
        link.start(THERE)
        with pytest.raises(TrainerError, match=r"did not answer in 0.3 s"):
            link.publish(40, torch.ones(SIZE), [torch.ones(SIZE)])
        link.close()
