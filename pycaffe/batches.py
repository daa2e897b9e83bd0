"""Arrays of any length cut into a net's batches, and what comes out put together again.

Source: caffe/python/caffe/pycaffe.py, _Net_batch, _Net_forward_all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prototxt_parser.live_blob import FloatArray


def cut(arrays: Mapping[str, ArrayLike], size: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield batches of `size` items of every array, the last one filled up with zeros."""
    given = {name: np.asarray(array) for name, array in arrays.items()}
    length = len(next(iter(given.values()))) if given else 0
    for start in range(0, length, size):
        yield {name: _filled(array[start : start + size], size) for name, array in given.items()}


def _filled(array: NDArray[Any], size: int) -> NDArray[Any]:
    missing = np.zeros((size - len(array), *array.shape[1:]))
    return np.concatenate([array, missing]) if len(missing) else array


def zipped(
    inputs: Iterator[dict[str, NDArray[Any]]], seeds: Iterator[dict[str, NDArray[Any]]]
) -> Iterator[tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]]:
    """Yield pairs of batches; where one kind has run out, nothing of it."""
    yield from zip_longest(inputs, seeds, fillvalue={})


class Batches:
    """Copies of what a net returned, batch after batch."""

    def __init__(self) -> None:
        self._parts: dict[str, list[FloatArray]] = {}

    def add(self, batch: Mapping[str, FloatArray]) -> None:
        """Keep a copy of a batch."""
        for name, array in batch.items():
            self._parts.setdefault(name, []).append(np.atleast_1d(array).copy())

    def joined(self, length: int) -> dict[str, FloatArray]:
        """Return everything in one array for each name, without what `length` items do not need."""
        joined = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        padded = max((len(array) for array in joined.values()), default=0)
        return {
            name: array[:length] if len(array) == padded else array
            for name, array in joined.items()
        }
