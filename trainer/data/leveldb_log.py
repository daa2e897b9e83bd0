"""LevelDB's log format: of the write-ahead log, and of the list of tables (MANIFEST).

A file is a sequence of blocks of 32 KiB. A record lies in one fragment or goes on in the blocks
that follow; a fragment is: masked CRC-32C of kind and payload, payload length, kind, payload.

Source: google/leveldb doc/log_format.md; db/log_reader.cc, ReadPhysicalRecord.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from trainer.data.leveldb_coding import masked_crc

_BLOCK = 32768
_HEADER = struct.Struct("<IHB")  # checksum, length, kind
_ROOM = _BLOCK - _HEADER.size
_ZERO, _FULL, _FIRST, _MIDDLE, _LAST = range(5)


class Record(NamedTuple):
    """One record of a log.

    Attributes:
        payload: Its bytes.
        offset: Where in the file the payload of its first fragment begins.
    """

    payload: bytes
    offset: int

    def place(self, position: int) -> int:
        """Return where in the file byte `position` of the payload lies."""
        first = -self.offset % _BLOCK  # payload bytes up to the end of the block
        if position < first:
            return self.offset + position
        blocks, rest = divmod(position - first, _ROOM)
        return self.offset + first + blocks * _BLOCK + _HEADER.size + rest


def read_records(file: Path) -> Iterator[Record]:
    """Yield the records of a log.

    Differs from LevelDB: a record that was cut off at the end of the file is an error. LevelDB
    takes it for one whose writing was interrupted, and drops it; a database that was copied in
    part would then quietly be smaller.

    Raises:
        ValueError: The log is damaged or cut off.
        OSError: It cannot be read.
    """
    parts: list[bytes] = []
    begin = 0
    for kind, payload, offset in _fragments(file):
        if (kind in (_FULL, _FIRST)) == bool(parts):
            raise ValueError(f"a fragment that belongs to no record before byte {offset}")
        begin = begin if parts else offset
        parts.append(payload)
        if kind in (_FULL, _LAST):
            yield Record(b"".join(parts), begin)
            parts = []
    if parts:
        raise ValueError("its last record is cut off")


def _fragments(file: Path) -> Iterator[tuple[int, bytes, int]]:
    with file.open("rb") as stream:
        for start in range(0, max(file.stat().st_size, 1), _BLOCK):
            block = stream.read(_BLOCK)
            position = 0
            while position + _HEADER.size <= len(block):
                crc, length, kind = _HEADER.unpack_from(block, position)
                if kind == _ZERO and not length:
                    break  # room that was set aside and not used
                begin = position + _HEADER.size
                position = begin + length
                if position > len(block):
                    raise ValueError(f"the record at byte {start + begin} is cut off")
                if masked_crc(block[begin - 1 : position]) != crc:
                    raise ValueError(f"wrong checksum of the record at byte {start + begin}")
                if not _FULL <= kind <= _LAST or (kind in (_FIRST, _MIDDLE) and position < _BLOCK):
                    raise ValueError(f"a fragment of kind {kind} before byte {start + position}")
                yield kind, block[begin:position], start + begin
            if len(block) < _BLOCK and any(block[position:]):
                raise ValueError(f"the record at byte {start + position} is cut off")


def read_span(handle: int, offset: int, length: int) -> bytes:
    """Return payload bytes of one record, given where in the file the first of them lies.

    Raises:
        ValueError: The file ends before.
        OSError: It cannot be read.
    """
    parts = []
    left = length
    while left:
        part = os.pread(handle, min(left, _BLOCK - offset % _BLOCK), offset)
        if not part:
            raise ValueError(f"the file ends at byte {offset}")
        parts.append(part)
        left -= len(part)
        offset += len(part)
        if offset % _BLOCK == 0:
            offset += _HEADER.size
    return b"".join(parts)


def format_record(payload: bytes) -> bytes:
    """Return a whole log of one record."""
    pieces = [payload[start : start + _ROOM] for start in range(0, max(len(payload), 1), _ROOM)]
    kinds = [_FULL] if len(pieces) == 1 else [_FIRST, *[_MIDDLE] * (len(pieces) - 2), _LAST]
    return b"".join(
        _HEADER.pack(masked_crc(bytes([kind]) + piece), len(piece), kind) + piece
        for kind, piece in zip(kinds, pieces, strict=True)
    )
