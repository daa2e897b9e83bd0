"""LevelDB's table files: sorted entries in blocks, and an index of the blocks.

Source: google/leveldb doc/table_format.md; table/format.cc, ReadBlock; table/block.cc.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from trainer.data.leveldb_coding import masked_crc, read_varint
from trainer.data.snappy import decompress

MAGIC = 0xDB4775248B80FB57
FOOTER_SIZE = 48
BLOCK_TRAILER = struct.Struct("<BI")  # compression, checksum
UNCOMPRESSED, SNAPPY = 0, 1

_UINT32 = struct.Struct("<I")
_HEAD = 512  # enough to see how long the first entry of a block is


class BlockHandle(NamedTuple):
    """Where in its file a block lies, without the trailer."""

    offset: int
    size: int


class BlockEntry(NamedTuple):
    """A key of a block, and where in the uncompressed block its value lies."""

    key: bytes
    start: int
    length: int


def read_block(handle: int, block: BlockHandle) -> bytes:
    """Return the content of a block, uncompressed.

    Raises:
        ValueError, IndexError: It is damaged, or not all there.
        OSError: It cannot be read.
    """
    stored = os.pread(handle, block.size + BLOCK_TRAILER.size, block.offset)
    if len(stored) != block.size + BLOCK_TRAILER.size:
        raise ValueError(f"the block at byte {block.offset} is cut off")
    compression, crc = BLOCK_TRAILER.unpack_from(stored, block.size)
    if masked_crc(stored[: block.size + 1]) != crc:
        raise ValueError(f"wrong checksum of the block at byte {block.offset}")
    if compression == SNAPPY:
        return decompress(stored[: block.size])
    if compression != UNCOMPRESSED:
        raise ValueError(f"compression {compression}; only Snappy and none are known")
    return stored[: block.size]


def block_entries(content: bytes) -> Iterator[BlockEntry]:
    """Yield the entries of a block in key order.

    Raises:
        ValueError, IndexError: It is damaged.
    """
    restarts = _UINT32.unpack_from(content, len(content) - 4)[0] if len(content) > 3 else 0
    end = len(content) - 4 * (restarts + 1)
    if end < 0:
        raise ValueError(f"a block of {len(content)} bytes with {restarts} restarts")
    key, position = b"", 0
    while position < end:
        entry, position = _entry(content, position, key)
        if position > end:
            raise ValueError("an entry that goes beyond its block")
        key = entry.key
        yield entry


def _entry(content: bytes, position: int, previous: bytes) -> tuple[BlockEntry, int]:
    """Return the entry at `position` and the position after it."""
    shared, position = read_varint(content, position)
    added, position = read_varint(content, position)
    length, position = read_varint(content, position)
    start = position + added
    if shared > len(previous):
        raise ValueError("a key that shares more than the one before has")
    return BlockEntry(previous[:shared] + content[position:start], start, length), start + length


def read_blocks(handle: int, size: int) -> list[BlockHandle]:
    """Return the data blocks of a table of `size` bytes, in key order.

    Raises:
        ValueError, IndexError: The table is damaged or cut off.
        OSError: It cannot be read.
    """
    footer = os.pread(handle, FOOTER_SIZE, max(size - FOOTER_SIZE, 0))
    if len(footer) != FOOTER_SIZE:
        raise ValueError(f"expected {size} bytes")
    if int.from_bytes(footer[-8:], "little") != MAGIC:
        raise ValueError(f"expected the end of a table after {size} bytes")
    _, position = _block_handle(footer, 0)
    index, _ = _block_handle(footer, position)
    content = read_block(handle, index)
    return [_block_handle(content, entry.start)[0] for entry in block_entries(content)]


def _block_handle(data: bytes, position: int) -> tuple[BlockHandle, int]:
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return BlockHandle(offset, size), position


def scan_block(handle: int, block: BlockHandle) -> list[BlockEntry]:
    """Return the entries of a block; of a large block with a single value, only its head is read.

    Raises:
        ValueError, IndexError: It is damaged.
        OSError: It cannot be read.
    """
    if block.size > 2 * _HEAD:
        entry = _only_entry(handle, block)
        if entry is not None:
            return [entry]
    return list(block_entries(read_block(handle, block)))


def _only_entry(handle: int, block: BlockHandle) -> BlockEntry | None:
    """Return the first entry of a block if its end is the block's, None if others follow."""
    head = os.pread(handle, _HEAD, block.offset)
    compression = os.pread(handle, 1, block.offset + block.size)
    size = block.size
    if compression == bytes([SNAPPY]):
        size, _ = read_varint(head, 0)
        try:
            head = decompress(head, _HEAD // 2)
        except (ValueError, IndexError):  # more than it needs lies behind the head
            return None
    entry, end = _entry(head, 0, b"")
    is_alone = end + 2 * _UINT32.size == size and entry.start <= len(head)
    return entry if is_alone else None
