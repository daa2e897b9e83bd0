"""Entries of Caffe's databases: keys with serialized Datums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prototxt_parser.proto import caffe_pb2

Entry = tuple[bytes, bytes]


def datum_entries(
    images: Iterable[tuple[int, bytes]], shape: tuple[int, int, int], key_digits: int
) -> Iterator[Entry]:
    """Turn labelled raw images into database entries, numbered from 0.

    Args:
        images: Label and pixels in the order channel, row, column.
        shape: Channels, height, width.
        key_digits: Width of the keys, filled with zeros.
    """
    channels, height, width = shape
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width)
    for number, (label, pixels) in enumerate(images):
        datum.label = label
        datum.data = pixels
        yield f"{number:0{key_digits}d}".encode(), datum.SerializeToString()
