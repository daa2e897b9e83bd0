"""Snappy decompression: the compression of LevelDB's tables."""

from __future__ import annotations

from trainer.data.leveldb_coding import read_varint

_LITERAL, _COPY_1, _COPY_2 = 0, 1, 2
_LONG_LITERAL = 60  # literals of this tag and above give their length in 1 to 4 bytes


def decompress(data: bytes, most: int | None = None) -> bytes:
    """Return what `data` was before compression.

    Args:
        data: A raw Snappy stream (not the framed format).
        most: Stop once this many bytes are known; `data` may end there too.

    Raises:
        ValueError, IndexError: The stream is damaged.

    Source: google/snappy format_description.txt.
    """
    size, position = read_varint(data, 0)
    wanted = size if most is None else min(size, most)
    out = bytearray()
    while len(out) < wanted:
        tag = data[position]
        kind = tag & 3
        if kind == _LITERAL:
            length = tag >> 2
            position += 1
            if length >= _LONG_LITERAL:
                width = length - _LONG_LITERAL + 1
                length = int.from_bytes(data[position : position + width], "little")
                position += width
            out += data[position : position + length + 1]
            position += length + 1
            if position > len(data):
                break
            continue
        if kind == _COPY_1:
            length = (tag >> 2 & 7) + 4
            offset = (tag & 0xE0) << 3 | data[position + 1]
            position += 2
        else:
            length = (tag >> 2) + 1
            width = 2 if kind == _COPY_2 else 4
            offset = int.from_bytes(data[position + 1 : position + 1 + width], "little")
            position += 1 + width
        start = len(out) - offset
        if start < 0 or not offset:
            raise ValueError(f"a Snappy copy from {offset} bytes before byte {len(out)}")
        if offset >= length:
            out += out[start : start + length]
        else:  # the copy reads what it writes: a pattern that repeats
            out += (out[start:] * (length // offset + 1))[:length]
    if len(out) < wanted or (most is None and len(out) != size):
        raise ValueError(f"expected {size} bytes of Snappy data, received {len(out)}")
    return bytes(out[:wanted])
