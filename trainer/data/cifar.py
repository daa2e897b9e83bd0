"""CIFAR-10 and CIFAR-100 in their publishers' binary version."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.errors import DataError

CIFAR_SHAPE = (3, 32, 32)

_PIXELS = 3 * 32 * 32


def cifar_images(
    content: bytes, name: str, label_bytes: int, records: int
) -> Iterator[tuple[int, bytes]]:
    """Return label and pixels (planes R, G, B) of every record.

    Args:
        content: The file.
        name: For messages.
        label_bytes: Bytes before the pixels; the last of them is the label (in CIFAR-100 the
            coarse one comes first, then the fine one).
        records: How many there must be.

    Raises:
        DataError: The file is not of that many records.

    Source: BVLC/caffe examples/cifar10/convert_cifar_data.cpp, read_image.
    """
    size = label_bytes + _PIXELS
    if len(content) != records * size:
        raise DataError(
            f"{name}: expected {records} records of {size} bytes, {records * size} in all;"
            f" received {len(content)} bytes: fetch the file again"
        )
    return (
        (content[start + label_bytes - 1], content[start + label_bytes : start + size])
        for start in range(0, len(content), size)
    )
