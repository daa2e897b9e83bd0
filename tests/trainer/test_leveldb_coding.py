"""Numbers, checksums and Snappy streams, against their specifications."""

import struct

import numpy as np
import pytest

from trainer.data.leveldb_coding import masked_crc, read_bytes, read_varint, write_varint
from trainer.data.leveldb_log import format_record
from trainer.data.snappy import decompress


def mask(crc: int) -> int:
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return (rotated + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """Return the checksum bit by bit."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_checksums_are_those_of_the_standard(data: bytes, crc: int) -> None:
    assert masked_crc(data) == mask(crc)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 1023, 1024, 1025, 1027, 2048, 3001])
def test_checksums_go_on_from_chunk_to_chunk(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert masked_crc(data) == mask(crc32c(data))


@pytest.mark.parametrize(
    ("number", "coded"), [(0, b"\0"), (127, b"\x7f"), (300, b"\xac\x02"), (2**64 - 1, None)]
)
def test_varints_round_trip(number: int, coded: bytes | None) -> None:
    written = write_varint(number)
    assert coded in (None, written)
    assert read_varint(b"xx" + written + b"y", 2) == (number, 2 + len(written))


def test_what_is_no_number_or_string_is_refused() -> None:
    with pytest.raises(ValueError, match=r"more than 64 bits"):
        read_varint(b"\xff" * 11, 0)
    with pytest.raises(IndexError):
        read_varint(b"\xff", 0)
    with pytest.raises(ValueError, match=r"expected 9 bytes, received 2"):
        read_bytes(b"\x09ab", 0)


def literal(data: bytes) -> bytes:
    return bytes([len(data) - 1 << 2]) + data


TEXT = bytes(range(100, 200))
FAR = bytes(range(256)) * 2
STREAMS = [
    (b"\0", b""),
    (b"\x03" + literal(b"abc"), b"abc"),
    (b"\x64" + b"\xf0\x63" + TEXT, TEXT),  # its length in one byte more
    (b"\x64" + b"\xf4\x63\0" + TEXT, TEXT),  # in two
    (b"\x64" + b"\xf8\x63\0\0" + TEXT, TEXT),
    (b"\x64" + b"\xfc\x63\0\0\0" + TEXT, TEXT),
    (b"\x08" + literal(b"wxyz") + b"\x01\x04", b"wxyzwxyz"),  # 4 bytes from 4 before
    (b"\x0b" + literal(b"ab") + b"\x15\x02", b"abababababa"),  # the copy reads what it writes
    (b"\x06" + literal(b"abc") + b"\x0a\x03\0", b"abcabc"),
    (b"\x05" + literal(b"abc") + b"\x07\x03\0\0\0", b"abcab"),
    (b"\x84\x04" + b"\xf4\xff\x01" + FAR + b"\x21\x2c", FAR + FAR[212:216]),  # 300 before
]


@pytest.mark.parametrize(("stream", "text"), STREAMS)
def test_snappy_streams_decompress(stream: bytes, text: bytes) -> None:
    assert decompress(stream) == text


@pytest.mark.parametrize(
    "stream",
    [
        b"\x05" + literal(b"abc"),  # too little
        b"\x02" + literal(b"abc"),  # too much
        b"\x07" + literal(b"abc") + b"\x01\x04",  # from before the beginning
        b"\x07" + literal(b"abc") + b"\x01\x00",  # from nowhere
        b"\x09\x20abc",  # a literal that is cut off
        b"\x09" + literal(b"abc") + b"\x0a\x03",  # a copy that is cut off
    ],
)
def test_damaged_snappy_streams_are_refused(stream: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        decompress(stream)


def test_snappy_can_stop_early() -> None:
    assert decompress(b"\x0b" + literal(b"abcdef") + b"cut off here", 5) == b"abcde"


def test_a_log_is_written_in_blocks() -> None:
    payload = bytes(70_000)
    log = format_record(payload)
    kinds = [struct.unpack_from("<IHB", log, start)[1:] for start in (0, 32768, 65536)]
    assert kinds == [(32761, 2), (32761, 3), (70_000 - 2 * 32761, 4)]
    assert len(log) == 70_000 + 3 * 7
