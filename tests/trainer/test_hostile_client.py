"""What no worker of ours asks for, of a real service: refused, and the run goes on."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import torch
from desks import SIZE, make_desk
from hostile import (
    DONE,
    GOOD,
    HOST,
    LOG,
    PUSH,
    SCHEMA,
    THERE,
    WHO,
    Caller,
    Target,
    numbers,
    refused,
)
from pyarrow import flight

from trainer.errors import TrainerError
from trainer.links import Move
from trainer.parameter_server import wire
from trainer.parameter_server.client import FlightLink
from trainer.parameter_server.service import serving

# Strangers.

TOKEN = "the token of this run is missing or wrong"
FIRST = f"speaks version {wire.VERSION} of torrefy's protocol, the caller version 1"
STRANGERS: list[tuple[Mapping[str, Any], str]] = [
    ({"token": ""}, TOKEN),
    ({"token": "Bearer wrong"}, TOKEN),
    ({"token": "Bearer "}, TOKEN),
    ({"token": "x" * 5000}, TOKEN),
    ({"version": None}, FIRST),
    ({"version": "1"}, FIRST),
    ({"version": "99"}, "the caller version 99: install the same torrefy"),
    ({"version": "v" * 5000}, "the caller version vvvvvvvvvvvvvvvvvvvv: install"),
]


@pytest.mark.parametrize(("shown", "message"), STRANGERS)
def test_strangers_are_refused(target: Target, shown: Mapping[str, Any], message: str) -> None:
    caller = Caller(target.address, **shown)
    fields = WHO | {"message": "", "details": "", "is_lost_peer": False}
    refused(lambda: caller.act("fail", json.dumps(fields).encode()), message)
    refused(lambda: caller.exchange(json.dumps(PUSH).encode(), [GOOD]), message)
    caller.close()


def test_token_without_its_word_is_refused(target: Target) -> None:
    caller = Caller(target.address, token=target.address.token)
    refused(lambda: caller.act("finish", b"{}"), TOKEN)
    caller.close()


def test_those_who_speak_the_other_way_get_nowhere(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain to a service with TLS, and TLS to one without."""
    is_plain = target.address.certificate is None
    with serving(make_desk(), HOST, encrypted=is_plain) as other:
        wrong = replace(other, port=target.address.port, token=target.address.token)
        link = FlightLink(wrong, 0, timeout_s=20)
        with pytest.raises(TrainerError, match="cannot be reached"):
            link.start(THERE)
        link.close()


# Commands.

BAD_COMMANDS: list[tuple[bytes, str]] = [
    (b"", "not JSON"),
    (b"\x80\x04\x95pickle", "not JSON"),
    (b"\xff\xfe", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b'{"a":' * 100_000, "not JSON"),
    (b"1" * 10_000, "not JSON"),
    (b"[1]", "not a JSON object"),
    (b'"call"', "not a JSON object"),
    (b'{"call": "exchange", "x": "' + b"x" * (1 << 20) + b'"}', "at most 1048576 bytes"),
    (b"{}", "KeyError('call')"),
    (b'{"call": "explode"}', "KeyError('explode')"),
    (b'{"call": "\\ud800"}', "KeyError"),
    (b'{"call": ["exchange"]}', "TypeError"),
    (b'{"call": "__class__"}', "KeyError"),
]


@pytest.mark.parametrize(("command", "message"), BAD_COMMANDS)
def test_commands_that_are_none_are_refused(caller: Caller, command: bytes, message: str) -> None:
    refused(lambda: caller.exchange(command, [GOOD]), message)


BAD_BODIES = [case for case in BAD_COMMANDS if b"call" not in case[0]]


@pytest.mark.parametrize(("body", "message"), BAD_BODIES)
@pytest.mark.parametrize("name", ["report", "finish", "fail", "shared"])
def test_bodies_that_are_none_are_refused(
    caller: Caller, name: str, body: bytes, message: str
) -> None:
    refused(lambda: caller.act(name, body), "KeyError" if body == b"{}" else message)


@pytest.mark.parametrize("name", ["", "explode", "_report", "start", "x" * 100_000])
def test_actions_that_are_none_are_refused(caller: Caller, name: str) -> None:
    refused(lambda: caller.act(name, json.dumps(WHO).encode()), "KeyError")


BAD_FIELDS: list[tuple[Mapping[str, Any], str]] = [
    ({"rank": -1}, "rank: expected a whole number; received -1"),
    ({"rank": 2}, "expected a worker 0 to 1; received 2"),
    ({"rank": 1 << 60}, "rank: expected a whole number"),
    ({"rank": 10**400}, "rank: expected a whole number"),
    ({"rank": 0.0}, "rank: expected a whole number"),
    ({"rank": True}, "rank: expected a whole number"),
    ({"rank": None}, "rank: expected a whole number"),
    ({"rank": "0"}, "rank: expected a whole number"),
    ({"rank": "😀" * 50_000}, "rank: expected a whole number"),
    ({"rank": "\ud800" * 5000}, "rank: expected a whole number"),
    ({"rank": 1}, "worker 1, attempt 1: refused, attempt 0 is the current one"),
    ({"attempt": 0}, "expected an attempt from 1; received 0"),
    ({"attempt": 2}, "attempt 2: refused, attempt 1 is the current one"),
    ({"sequence": -1}, "sequence: expected a whole number"),
    ({"iteration": []}, "iteration: expected a whole number"),
    ({"is_answered": 1}, "is_answered: expected true or false"),
    ({"dtype": "int8"}, "expected a dtype of float32"),
    ({"dtype": ["float32"]}, "expected a dtype of float32"),
    ({"dtype": "float64"}, "expected a stream of float64 values"),
    ({"dtype": "float16"}, "expected a stream of float16 values"),
    ({"move": None}, "TypeError"),
    ({"move": "elastic"}, "TypeError"),
    ({"move": {"rule": "elastic"}}, "KeyError('rate')"),
    ({"move": {"rule": "eval", "rate": 0.5}}, "expected a move of elastic"),
    ({"move": {"rule": {}, "rate": 0.5}}, "expected a move of elastic"),
    ({"move": {"rule": "elastic", "rate": 1.5}}, "expected a rate of 0 to 1; received 1.5"),
    ({"move": {"rule": "elastic", "rate": -0.1}}, "expected a rate of 0 to 1"),
    ({"move": {"rule": "elastic", "rate": float("nan")}}, "expected a rate of 0 to 1"),
    ({"move": {"rule": "subtract", "rate": float("inf")}}, "expected a rate of 0 or more"),
    ({"move": {"rule": "subtract", "rate": 10**400}}, "OverflowError"),
    ({"move": {"rule": "elastic", "rate": "0.5"}}, "rate: expected a number"),
    ({"move": {"rule": "count", "rate": 1}}, "expected 0 values; received more"),
    ({"call": "publish", "number": 1}, "expected 14 values; received 7"),
    ({"call": "deposit", "values": {}, "tensors": 2}, "expected 14 values; received 7"),
    ({"call": "deposit", "values": {}, "tensors": 0}, "expected 0 values; received more"),
    ({"call": "deposit", "values": 5, "tensors": 1}, "TypeError"),
    ({"call": "meet", "size": 1 << 40, "number": 1}, "expected at most 7 values"),
    ({"call": "meet", "size": 3, "number": 1}, "expected 3 values; received more"),
    ({"call": "meet", "size": SIZE, "number": 5}, "expected a call of meeting 1; received 5"),
    ({"call": "start", "place": {"host": "x", "pid": "y"}}, "received more"),
    ({"call": "fetch"}, "expected 0 values; received more"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_FIELDS)
def test_fields_that_do_not_fit_are_refused(
    caller: Caller, fields: Mapping[str, Any], message: str
) -> None:
    refused(lambda: caller.exchange(json.dumps({**PUSH, **fields}).encode(), [GOOD]), message)


BAD_RECORDS: list[tuple[Any, str]] = [
    (5, "expected a list"),
    ({"kind": "log"}, "expected a list"),
    ([5], "expected a record of log, progress, exchange"),
    ([{"kind": "explode"}], "expected a record of log, progress, exchange"),
    ([{"kind": ["log"]}], "expected a record of log, progress, exchange"),
    ([LOG | {"level": "high"}], "level of a record of log: received 'high'"),
    ([LOG | {"message": None}], "message of a record of log"),
    ([LOG, DONE | {"iteration": -5}], "iteration of a record of progress: received -5"),
    ([DONE | {"iteration": 1 << 70}], "iteration of a record of progress"),
    ([DONE | {"batch": True}], "batch of a record of progress"),
    ([DONE | {"loss": [0.5]}], "loss of a record of progress"),
    ([DONE | {"kind": "exchange"}], "lr of a record of exchange"),
]


@pytest.mark.parametrize(("records", "message"), BAD_RECORDS)
def test_measurements_that_cannot_be_added_up_are_refused(
    caller: Caller, records: Any, message: str
) -> None:
    body = json.dumps(WHO | {"number": 1, "records": records}).encode()
    refused(lambda: caller.act("report", body), message)


def test_other_calls_of_flight_are_refused(target: Target, caller: Caller) -> None:
    client, options = caller._client, caller.options
    descriptor = flight.FlightDescriptor.for_command(b"x")
    calls: list[Callable[[], object]] = [
        lambda: client.do_get(flight.Ticket(b"x"), options).read_all(),
        lambda: list(client.list_flights(b"", options)),
        lambda: list(client.list_actions(options)),
        lambda: client.get_flight_info(descriptor, options),
        lambda: client.get_schema(descriptor, options),
        lambda: client.do_put(descriptor, SCHEMA, options)[0].close(),
    ]
    for call in calls:
        refused(call, "no such call here")


# Tensors.

STRINGS = pa.record_batch([pa.array(["a"] * SIZE)], names=["values"])
WIDER = pa.record_batch([GOOD.column(0), GOOD.column(0)], names=["values", "more"])
OTHER = pa.record_batch([pa.array([5.0] * SIZE, pa.float64())], names=["values"])
NULLABLE = pa.record_batch([GOOD.column(0)], names=["values"])
BAD_TENSORS: list[tuple[Sequence[pa.RecordBatch], str]] = [
    ([STRINGS], "expected a stream of float32 values"),
    ([WIDER], "expected a stream of float32 values"),
    ([OTHER], "expected a stream of float32 values"),
    ([NULLABLE], "expected a stream of float32 values"),
    ([numbers([])], "expected 7 values; received 0"),
    ([numbers([5.0])], "expected 7 values; received 1"),
    ([GOOD, numbers([5.0])], "expected 7 values; received more"),
    ([numbers([5.0] * 1_000_000)] * 20, "expected 7 values; received more"),
    ([numbers([None] * SIZE)], "received nulls"),
    ([numbers([5.0] * (SIZE - 1) + [None])], "received nulls"),
    ([numbers([5.0] * (SIZE - 1) + [float("nan")])], "training diverges"),
    ([numbers([float("inf")] + [5.0] * (SIZE - 1))], "training diverges"),
    ([numbers([5.0] * (SIZE - 1) + [float("-inf")])], "training diverges"),
]


@pytest.mark.parametrize(("batches", "message"), BAD_TENSORS)
def test_tensors_that_do_not_fit_are_refused(
    caller: Caller, batches: Sequence[pa.RecordBatch], message: str
) -> None:
    refused(lambda: caller.exchange(json.dumps(PUSH).encode(), batches), message)


def test_reading_stops_with_the_first_value_too_many(target: Target, caller: Caller) -> None:
    """What a caller could send on and on is not read, let alone kept."""
    writer, _ = caller.open(json.dumps(PUSH).encode())
    writer.begin(SCHEMA)
    sent, batch = [], numbers([5.0] * 250_000)
    with pytest.raises((pa.ArrowException, OSError)):
        while len(sent) < 10_000:
            writer.write_batch(batch)
            sent.append(batch)
    assert len(sent) < 1000


# What was good once.


def test_replayed_push_counts_once() -> None:
    desk = make_desk()
    with serving(desk, HOST) as address:
        desk.start(0, THERE)
        caller = Caller(address)
        for value in (5.0, 100.0, 100.0):
            writer, reader = caller.open(json.dumps(PUSH).encode())
            with writer:
                writer.begin(SCHEMA)
                writer.write_batch(numbers([value] * SIZE))
                writer.done_writing()
                wire.receive_message(reader)
        assert desk.center.copy().tolist() == [(5 + value) / 2 for value in range(SIZE)]
        assert desk.center.iterations == [1, 0]
        caller.close()


def test_replayed_report_and_publication_count_once() -> None:
    desk = make_desk()
    with serving(desk, HOST) as address:
        desk.start(0, THERE)
        caller = Caller(address)
        body = json.dumps(WHO | {"number": 3, "records": [DONE]}).encode()
        for _ in range(3):
            caller.act("report", body)
        assert desk.take_records() == [DONE | {"rank": 0}]
        command = WHO | {"call": "publish", "number": 4, "iteration": 20}
        for _ in range(3):
            writer, reader = caller.open(json.dumps(command).encode())
            with writer:
                writer.begin(SCHEMA)
                writer.write_batch(numbers([5.0] * 2 * SIZE))
                writer.done_writing()
                wire.receive_message(reader)
        assert desk.next_milestone(0) is not None
        assert desk.next_milestone(0) is None
        caller.close()


def test_forerunner_of_an_attempt_is_refused(target: Target) -> None:
    """A worker that was thought dead, and is not."""
    links = [FlightLink(target.address, 1, timeout_s=20) for _ in range(2)]
    for link in links:
        link.start(THERE)
    old, new = links
    calls: list[Callable[[], object]] = [
        lambda: old.exchange(torch.ones(SIZE), Move("elastic", 0.5), 1),
        lambda: old.fetch(),
        lambda: old.publish(20, torch.ones(SIZE), [torch.ones(SIZE)]),
        lambda: old.deposit(20, {}, [torch.ones(SIZE)]),
        lambda: old.meet(torch.ones(SIZE)),
        lambda: old.report([DONE]),
        lambda: old.finish(),
        lambda: old.fail("x", "", is_lost_peer=False),
    ]
    for call in calls:
        with pytest.raises(TrainerError, match="attempt 1: refused, attempt 2 is the current one"):
            call()
    assert new.exchange(torch.ones(SIZE), Move("elastic", 0.0), 0).staleness == 0
    for link in links:
        link.close()
