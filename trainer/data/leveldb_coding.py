"""Numbers and checksums as LevelDB stores them.

Source: google/leveldb util/coding.cc, util/crc32c.h; RFC 3720 appendix B.4 (CRC-32C).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.errors import DataError

_POLYNOMIAL = 0x82F63B78
_CHUNK = 1024
_MASK_DELTA = 0xA282EAD8
_MOST_VARINT_BITS = 63


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number that begins at `position`, and the position after it.

    Raises:
        ValueError, IndexError: There is none.
    """
    byte = data[position]
    value, shift = byte & 0x7F, 7
    while byte & 0x80:
        if shift > _MOST_VARINT_BITS:
            raise ValueError("a number of more than 64 bits")
        position += 1
        byte = data[position]
        value |= (byte & 0x7F) << shift
        shift += 7
    return value, position + 1


def write_varint(value: int) -> bytes:
    """Return a number as 7 bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_bytes(data: bytes, position: int) -> tuple[bytes, int]:
    """Return the bytes that begin with their length at `position`, and the position after them.

    Raises:
        ValueError, IndexError: They are not all there.
    """
    length, start = read_varint(data, position)
    if start + length > len(data):
        raise ValueError(f"expected {length} bytes, received {len(data) - start}")
    return data[start : start + length], start + length


def write_bytes(value: bytes) -> bytes:
    """Return bytes with their length in front."""
    return write_varint(len(value)) + value


def masked_crc(data: bytes) -> int:
    """Return the CRC-32C of `data`, masked as LevelDB stores it.

    A loop over bytes would take longer than reading and decompressing; here the bytes of a chunk
    are looked up all at once, each in the table of its place.
    """
    state = 0xFFFFFFFF
    for start in range(0, len(data), _CHUNK):
        chunk = np.frombuffer(data[start : start + _CHUNK], np.uint8).copy()
        head = chunk[:4]
        head ^= np.frombuffer(struct.pack("<I", state), np.uint8)[: len(head)]
        found = _TABLES[_FLAT_INDEX[-len(chunk) :] + chunk]
        state = int(np.bitwise_xor.reduce(found)) ^ state >> 8 * len(chunk)
    crc = state ^ 0xFFFFFFFF
    return (crc >> 15 | crc << 17 & 0xFFFFFFFF) + _MASK_DELTA & 0xFFFFFFFF


def _make_tables() -> NDArray[np.uint32]:
    """Return what each byte value does to the checksum, for every place in a chunk, flat."""
    row = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        row = np.where(row & 1, row >> 1 ^ np.uint32(_POLYNOMIAL), row >> 1)
    last = row
    tables = np.empty((_CHUNK, 256), np.uint32)
    for place in reversed(range(_CHUNK)):
        tables[place] = row
        row = row >> 8 ^ last[row & 0xFF]
    return tables.ravel()


_TABLES = _make_tables()
_FLAT_INDEX = np.arange(_CHUNK, dtype=np.intp) * 256


@contextmanager
def damage_of(file: Path) -> Iterator[None]:
    """Turn what reading a damaged file raises into an error that names the file.

    Raises:
        DataError: The block ended so.
    """
    try:
        yield
    except (ValueError, IndexError, struct.error, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"{file}: the LevelDB cannot be read ({reason}): the file is missing, cut off or"
            " damaged; copy the database again or convert the images again"
        ) from error
