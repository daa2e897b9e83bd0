"""Writing one LevelDB table.

Source: google/leveldb table/table_builder.cc, table/block_builder.cc.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from trainer.data.entries import Entry
from trainer.data.leveldb_coding import masked_crc, write_varint
from trainer.data.leveldb_table import BLOCK_TRAILER, FOOTER_SIZE, MAGIC, UNCOMPRESSED
from trainer.data.leveldb_version import TableFile

_BLOCK_SIZE = 4096
_RESTART_INTERVAL = 16


def write_table(file: Path, number: int, entries: Sequence[Entry]) -> TableFile:
    """Write a table, its blocks uncompressed, and return what describes it.

    Args:
        file: Made new.
        number: Of the table.
        entries: At least one key, with sequence number and kind, and value, in order.

    Raises:
        OSError: The file system refuses.
    """
    index = _Block(restart_interval=1)
    with file.open("xb") as stream:

        def write(block: _Block) -> bytes:
            """Append a block; returns its handle."""
            content = block.content() + bytes([UNCOMPRESSED])
            handle = write_varint(stream.tell()) + write_varint(len(content) - 1)
            crc = BLOCK_TRAILER.pack(UNCOMPRESSED, masked_crc(content))[1:]
            stream.write(content + crc)
            return handle

        block = _Block(_RESTART_INTERVAL)
        for key, value in entries:
            if block.size >= _BLOCK_SIZE:
                index.add(block.last_key, write(block))
                block = _Block(_RESTART_INTERVAL)
            block.add(key, value)
        index.add(block.last_key, write(block))
        handles = write(_Block(1)) + write(index)  # of the empty block of filters first
        stream.write(handles.ljust(FOOTER_SIZE - 8, b"\0") + MAGIC.to_bytes(8, "little"))
        return TableFile(number, stream.tell(), entries[0][0], entries[-1][0])


class _Block:
    """Entries whose keys leave out what they share with the key before."""

    def __init__(self, restart_interval: int) -> None:
        self._interval = restart_interval
        self._parts: list[bytes] = []
        self._restarts: list[int] = []
        self._count = 0
        self.size = 0
        self.last_key = b""

    def add(self, key: bytes, value: bytes) -> None:
        """Append an entry."""
        shared = 0
        if self._count % self._interval:
            shared = _shared(self.last_key, key)
        else:
            self._restarts.append(self.size)
        head = b"".join(map(write_varint, (shared, len(key) - shared, len(value)))) + key[shared:]
        self._parts += (head, value)
        self.size += len(head) + len(value)
        self._count += 1
        self.last_key = key

    def content(self) -> bytes:
        """Return the block as it is stored."""
        restarts = self._restarts or [0]
        numbers = (*restarts, len(restarts))
        return b"".join((*self._parts, struct.pack(f"<{len(numbers)}I", *numbers)))


def _shared(previous: bytes, key: bytes) -> int:
    """Return how many bytes two keys have in common at their beginning."""
    pairs = enumerate(zip(previous, key, strict=False))
    shorter = min(len(previous), len(key))
    return next((place for place, (a, b) in pairs if a != b), shorter)
