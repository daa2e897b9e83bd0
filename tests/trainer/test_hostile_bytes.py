"""Bytes that are no call, calls that stop halfway, and damaged ones: the service goes on."""

import json
import random
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from itertools import product
from typing import Any

import grpc
import pyarrow as pa
import pytest
from desks import SIZE, has_ipv6, make_desk
from hostile import (
    HOST,
    LOG,
    PUSH,
    SCHEMA,
    THERE,
    WHO,
    Caller,
    Target,
    attacked,
    numbers,
)

from trainer.errors import TrainerError
from trainer.parameter_server import stalls, wire
from trainer.parameter_server.address import Address
from trainer.parameter_server.service import serving

# Bytes.

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
RAW: list[bytes] = [
    b"",
    b"\0",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    HELLO,
    HELLO + bytes(9),
    HELLO + struct.pack(">I", 0xFFFFFF)[1:] + b"\x00" * 6,  # a frame of 16 MiB, to come
    HELLO + struct.pack(">I", 0xFFFFFF)[1:] + b"\x01\x04\0\0\0\x01",
    HELLO + b"\0\0\0\x04\0\0\0\0\0" * 20_000,  # settings, again and again
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),  # TLS, half of it
    bytes(range(256)) * 1000,
]


def say(target: Target, sent: bytes) -> None:
    """Send bytes over a connection of their own, and hear what comes."""
    raw = socket.create_connection((HOST, target.address.port), timeout=20)
    with raw, suppress(OSError):  # thrown out
        raw.sendall(sent)
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(1 << 16):
            pass


@pytest.mark.parametrize("sent", RAW)
def test_bytes_that_are_no_call_do_no_harm(target: Target, sent: bytes) -> None:
    say(target, sent)


def test_random_bytes_do_no_harm(target: Target) -> None:
    draw = random.Random(5)
    for _ in range(50):
        head = draw.choice([b"", HELLO, HELLO + b"\0\0\0\x04\0\0\0\0\0"])
        say(target, head + draw.randbytes(draw.randrange(3000)))


def test_connections_that_say_nothing_do_not_keep_others_out(target: Target) -> None:
    where = HOST, target.address.port
    with ExitStack() as stack:
        for number in range(200):
            raw = stack.enter_context(socket.create_connection(where, timeout=20))
            raw.sendall(HELLO[: number % (len(HELLO) + 1)])
        target.check()


# Streams that stop.


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a service wait for half a second only."""
    monkeypatch.setattr(stalls, "_LIMIT_S", 0.5)


def fall_silent(caller: Caller, command: Mapping[str, Any], batches: int) -> Any:
    """Begin a call, send something, and no more; returns what reads the answer."""
    writer, reader = caller.open(json.dumps(command).encode())
    if batches >= 0:
        writer.begin(SCHEMA)
    for _ in range(batches):
        writer.write_batch(numbers([5.0]))
    return writer, reader


MEET = WHO | {"call": "meet", "dtype": "float32", "size": SIZE, "number": 1}
DEPOSIT = WHO | {"call": "deposit", "dtype": "float32", "iteration": 5, "values": {}, "tensors": 1}
PUBLISH = WHO | {"call": "publish", "dtype": "float32", "iteration": 5, "number": 1}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("command", "batches"),
    [*product([PUSH, MEET, DEPOSIT, PUBLISH], [0, 3]), (PUSH | {"call": "fetch"}, 0)],
)
def test_caller_that_falls_silent_is_cut_off(
    target: Target, caller: Caller, command: Mapping[str, Any], batches: int
) -> None:
    caller.deadline_s = None
    _, reader = fall_silent(caller, command, batches)
    with pytest.raises((pa.ArrowException, OSError)):
        reader.read_chunk()


@pytest.mark.usefixtures("impatient")
@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_caller_over_ipv6_is_cut_off() -> None:
    with attacked(encrypted=False, host="::1") as target:
        caller = Caller(target.address)
        caller.deadline_s = None
        _, reader = fall_silent(caller, PUSH, 1)
        with pytest.raises((pa.ArrowException, OSError)):
            reader.read_chunk()
        caller.close()


@pytest.mark.usefixtures("impatient")
def test_caller_that_does_not_take_its_answer_is_cut_off() -> None:
    size = 1 << 24
    desk = make_desk(size=size)
    with serving(desk, HOST) as address:
        caller = Caller(address)
        caller.deadline_s = None
        command = {"call": "start", "dtype": "float32", "rank": 0, "place": asdict(THERE)}
        writer, reader = fall_silent(caller, command, 0)
        writer.done_writing()
        time.sleep(2)
        with pytest.raises((pa.ArrowException, OSError)):
            while True:
                reader.read_chunk()
        caller.close()


@pytest.mark.usefixtures("impatient")
def test_service_ends_although_a_caller_stalls() -> None:
    with serving(make_desk(), HOST) as address:
        caller = Caller(address)
        caller.deadline_s = None
        stream = fall_silent(caller, PUSH, 1)
    with pytest.raises((pa.ArrowException, OSError)):
        stream[1].read_chunk()
    caller.close()


# Damage.


def field(number: int, raw: bytes) -> bytes:
    """Return a field of bytes as protobuf writes it."""
    parts, length = [], len(raw)
    while length > 127:
        parts.append(length & 127 | 128)
        length >>= 7
    key = number << 3 | 2
    keys = bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])
    return keys + bytes([*parts, length]) + raw


def as_sent(message: pa.Message, before: bytes = b"") -> bytes:
    """Return a part of a stream of Flight's, a FlightData, as it goes over the wire."""
    body = field(1000, message.body.to_pybytes()) if message.body else b""
    return before + field(2, message.metadata.to_pybytes()) + body


COMMAND = field(1, b"\x08\x02" + field(2, json.dumps(PUSH).encode()))
STREAM = [
    as_sent(pa.ipc.read_message(SCHEMA.serialize()), COMMAND),
    as_sent(pa.ipc.read_message(numbers([5.0] * (SIZE + 1)).serialize())),  # one too many
]


def damaged(stream: Sequence[bytes], draw: random.Random) -> list[bytes]:
    """Return a stream with bytes changed, cut out, doubled or put in, and parts lost or moved."""
    parts = [bytearray(part) for part in stream]
    for _ in range(draw.choice([1, 1, 2, 5])):
        part = draw.choice(parts)
        start = draw.randrange(len(part) + 1)
        stop = start + draw.choice([1, 1, 4, 8, 50])
        new = [draw.randbytes(stop - start), b"", bytes(part[start:stop]) * 2, b"\xff" * 4]
        part[start:stop] = draw.choice(new)
    if draw.random() < 0.2:
        parts = draw.choices(parts, k=draw.randrange(4))
    return [bytes(part) for part in parts]


class RawChannel:
    """Sends what gRPC itself lets through, below Flight."""

    def __init__(self, address: Address) -> None:
        if address.certificate is None:
            self.channel = grpc.insecure_channel(str(address))
        else:
            credentials = grpc.ssl_channel_credentials(
                address.certificate, address.client_key, address.client_certificate
            )
            self.channel = grpc.secure_channel(str(address), credentials)
        self._headers = [
            ("authorization", f"Bearer {address.token}"),
            ("torrefy-protocol", str(wire.VERSION)),
        ]
        service = "/arrow.flight.protocol.FlightService"
        self._exchange = self.channel.stream_stream(f"{service}/DoExchange")
        self._act = self.channel.unary_stream(f"{service}/DoAction")

    def exchange(self, parts: Sequence[bytes]) -> str:
        """Make a call with these parts; returns why it was refused."""
        return self._refusal(self._exchange(iter(parts), 20, self._headers))

    def act(self, action: bytes) -> str:
        """Make a call with this action; returns why it was refused."""
        return self._refusal(self._act(action, 20, self._headers))

    def _refusal(self, answers: Any) -> str:
        try:
            for _ in answers:
                pass
        except grpc.RpcError as error:
            assert error.code() != grpc.StatusCode.DEADLINE_EXCEEDED
            return f"{error.code()} {error.details()}"
        return ""


def test_damaged_streams_are_refused(target: Target) -> None:
    raw, draw = RawChannel(target.address), random.Random(7)
    assert "expected 7 values; received more" in raw.exchange(STREAM)
    for number in range(400):
        words = raw.exchange(damaged(STREAM, draw))
        assert words, number
        assert "Traceback" not in words, number
    raw.channel.close()


def test_damaged_actions_are_refused(target: Target) -> None:
    raw, draw = RawChannel(target.address), random.Random(9)
    body = json.dumps(WHO | {"number": 1, "records": [LOG | {"level": "high"}]}).encode()
    action = field(1, b"report") + field(2, body)
    assert "received 'high'" in raw.act(action)
    words = [raw.act(b"".join(damaged([action], draw))) for _ in range(400)]
    assert not any("Traceback" in each for each in words)
    assert sum(map(bool, words)) > 300  # damage may leave a report of nothing
    raw.channel.close()


def test_compressed_values_that_claim_to_be_long_are_refused(target: Target) -> None:
    """The length of a compressed buffer stands before it: here, a TiB."""
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA, options=options) as stream:
        stream.write_batch(numbers([5.0] * 1000))
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    _, message = reader.read_next_message(), reader.read_next_message()
    honest = as_sent(message)
    length = struct.pack("<q", 4000)
    assert honest.count(length) == 1 + honest.count(length, 0, 0)
    raw = RawChannel(target.address)
    assert "received more" in raw.exchange([STREAM[0], honest])
    assert raw.exchange([STREAM[0], honest.replace(length, struct.pack("<q", 1 << 40))])
    raw.channel.close()


def test_messages_decode_or_are_refused() -> None:
    draw = random.Random(11)
    whole = json.dumps(PUSH).encode()
    for _ in range(3000):
        raw = draw.choice([draw.randbytes(draw.randrange(60)), *damaged([whole], draw)])
        with suppress(TrainerError):
            assert isinstance(wire.decode(raw), dict)
