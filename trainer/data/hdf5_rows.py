"""Rows of datasets in HDF5 files, as Caffe's layers read them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trainer.data.paths import find_data
from trainer.errors import DataError

Rows = list[NDArray[np.float32]]

_NUMBERS = "fiu"  # NumPy's kinds of HDF5's classes float and integer


@dataclass(frozen=True)
class Hdf5File:
    """A file whose datasets have been looked at.

    Attributes:
        path: The file.
        names: Datasets to read.
        count: Rows in each of them.
        row_shapes: Shape of a row of each.
    """

    path: Path
    names: tuple[str, ...]
    count: int
    row_shapes: tuple[tuple[int, ...], ...]

    def read(self, begin: int, end: int) -> Rows:
        """Return rows `begin` to `end` of every dataset.

        Raises:
            DataError: The file is damaged, compressed in an unknown way, or has changed.
        """
        with _opened(self.path) as file:
            rows = [_dataset(file, self.path, name)[begin:end] for name in self.names]
        for name, array, shape in zip(self.names, rows, self.row_shapes, strict=True):
            if array.shape != (end - begin, *shape):
                raise DataError(f'{self.path}: dataset "{name}" has changed since it was opened')
        with np.errstate(over="ignore"):  # as in Caffe, what is too large becomes infinite
            return [array.astype(np.float32, copy=False) for array in rows]


def open_listed(listing: Path, names: Sequence[str], data_dir: Path | None) -> list[Hdf5File]:
    """Look at all files that a text file lists, whitespace between them.

    Args:
        listing: The text file.
        names: Datasets that every file must have.
        data_dir: Where else to look for the files.

    Raises:
        DataError: The list is empty, or a file of it is missing, damaged or unlike the first.
    """
    try:
        paths = [os.fsdecode(word) for word in listing.read_bytes().split()]
    except OSError as error:
        raise DataError(f"Failed to open source file: {listing}: {error}") from error
    if not paths:
        raise DataError(f"Must have at least 1 HDF5 filename listed in {listing}; received none")
    files: dict[str, Hdf5File] = {}
    for number, path in enumerate(paths, 1):
        try:
            if path not in files:
                files[path] = _look_at(find_data(path, data_dir), tuple(names))
                _check_alike(files[path], files[paths[0]])
        except DataError as error:
            raise DataError(f"{listing}, file {number} of {len(paths)}: {error}") from error
    return [files[path] for path in paths]


def _look_at(path: Path, names: tuple[str, ...]) -> Hdf5File:
    with _opened(path) as file:
        shapes = [tuple(_dataset(file, path, name).shape) for name in names]
    counts = {name: shape[0] for name, shape in zip(names, shapes, strict=True)}
    if len(set(counts.values())) != 1:
        raise DataError(f"{path}: expected as many rows in every dataset; received {counts}")
    if not shapes[0][0]:
        raise DataError(f"{path}: expected rows in its datasets; received none")
    return Hdf5File(path, names, shapes[0][0], tuple(shape[1:] for shape in shapes))


def _check_alike(file: Hdf5File, first: Hdf5File) -> None:
    pairs = zip(file.names, file.row_shapes, first.row_shapes, strict=True)
    for name, received, expected in pairs:
        if received != expected:
            raise DataError(
                f'{file.path}: rows of dataset "{name}" must have one shape in all files; expected'
                f" {expected} as in {first.path}, received {received}"
            )


def _dataset(file: Any, path: Path, name: str) -> Any:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        there = sorted(key for key, value in file.items() if isinstance(value, h5py.Dataset))
        raise DataError(
            f"{path}: Failed to find HDF5 dataset {name}: a dataset for every top is expected;"
            f" the file has {', '.join(there) or 'none'}"
        )
    if found.dtype.kind not in _NUMBERS:
        raise DataError(
            f'{path}: dataset "{name}": Unsupported datatype class: expected floats or integers;'
            f" received {found.dtype}"
        )
    if not found.shape:
        raise DataError(f'{path}: dataset "{name}": Input must have at least 1 axis; received 0')
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataError(
            f"Failed opening HDF5 file: {path}: {error}: it is no HDF5 file, damaged, or compressed"
            " by a filter that is not installed; write it again"
        ) from error
