"""Text files that list images with their labels, one a line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from trainer.errors import DataError

_INTEGER = re.compile(rb"\s*([+-]?\d+)")
_LONG = 2**63


class ListedImage(NamedTuple):
    """An image of a list.

    Attributes:
        name: Its path as listed; it may hold spaces.
        label: Its label; 0 if what stands there is no number.
        line: Line of the list that names it.
    """

    name: str
    label: int
    line: int


def read_image_list(file: Path) -> list[ListedImage]:
    """Read lines of a path, a space and a label; the last space divides them.

    Differs from Caffe: empty lines are passed over, where Caffe ends because it cannot load them.

    Raises:
        DataError: The file cannot be read or lists nothing.

    Source: BVLC/caffe src/caffe/layers/image_data_layer.cpp, DataLayerSetUp.
    """
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{file}: the list of images cannot be read: {error}") from error
    listed = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            name, _, label = line.rpartition(b" ")
            # A line without a space is both path and label.
            listed.append(ListedImage(os.fsdecode(name or label), _atoi(label), number))
    if not listed:
        raise DataError(f"{file}: File is empty: expected lines of an image's path and its label")
    return listed


def _atoi(text: bytes) -> int:
    """Return the number at the beginning of `text` as C's atoi does."""
    found = _INTEGER.match(text)
    number = int(found[1]) if found else 0
    number = min(max(number, -_LONG), _LONG - 1)
    return (number + 2**31) % 2**32 - 2**31
