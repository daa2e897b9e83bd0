"""MNIST in its publishers' IDX files."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from trainer.errors import DataError

MNIST_SHAPE = (1, 28, 28)

_IMAGES_HEADER = struct.Struct(">IIII")
_LABELS_HEADER = struct.Struct(">II")
_IMAGES_MAGIC, _LABELS_MAGIC = 2051, 2049


def mnist_images(images: bytes, labels: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    """Return label and pixels of every image.

    Args:
        images: The file of images.
        labels: The file of their labels.
        name: For messages.

    Raises:
        DataError: A magic number, a size or the number of labels is wrong.

    Source: BVLC/caffe examples/mnist/convert_mnist_data.cpp, convert_dataset.
    """
    _, rows, columns = MNIST_SHAPE
    count = _count(images, _IMAGES_HEADER, _IMAGES_MAGIC, f"{name} (images)")
    label_count = _count(labels, _LABELS_HEADER, _LABELS_MAGIC, f"{name} (labels)")
    size = rows * columns
    _expect(f"{name}: number of labels", count, label_count)
    _expect(f"{name}: image size", (rows, columns), _IMAGES_HEADER.unpack_from(images)[2:])
    _expect(f"{name}: bytes of images", _IMAGES_HEADER.size + count * size, len(images))
    _expect(f"{name}: bytes of labels", _LABELS_HEADER.size + count, len(labels))
    return (
        (labels[_LABELS_HEADER.size + number], images[start : start + size])
        for number, start in enumerate(range(_IMAGES_HEADER.size, len(images), size))
    )


def _count(content: bytes, header: struct.Struct, magic: int, name: str) -> int:
    if len(content) < header.size:
        raise DataError(f"{name}: {len(content)} bytes are no IDX file: fetch it again")
    found = header.unpack_from(content)
    _expect(f"{name}: magic number", magic, found[0])
    return int(found[1])


def _expect(what: str, expected: object, received: object) -> None:
    if received != expected:
        raise DataError(f"{what}: expected {expected}, received {received}: fetch the files again")
