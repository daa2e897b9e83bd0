"""Caffe's databases by backend: LMDB or LevelDB."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from trainer.data.entries import Entry
from trainer.data.leveldb_reader import LevelDbReader
from trainer.data.leveldb_writer import new_leveldb
from trainer.data.lmdb_reader import LmdbReader
from trainer.data.lmdb_writer import new_lmdb
from trainer.errors import DataError

BACKENDS = ("lmdb", "leveldb")

_READERS: dict[str, Callable[[Path, int, int], DatabaseReader]] = {
    "lmdb": LmdbReader,
    "leveldb": LevelDbReader,
}
_WRITERS: dict[str, Callable[[Path], AbstractContextManager[DatabaseWriter]]] = {
    "lmdb": new_lmdb,
    "leveldb": new_leveldb,
}
_MARKS = {"lmdb": "data.mdb", "leveldb": "CURRENT"}


class DatabaseReader(Protocol):
    """A cursor over a part of a database, in key order; see `LmdbReader`."""

    path: Path
    count: int
    begin: int
    end: int
    entry: int

    @property
    def key(self) -> bytes:
        """Key of the current entry."""

    @property
    def value(self) -> bytes:
        """Value of the current entry."""

    def advance(self) -> None:
        """Go to the next entry of the part, or from its last to its first."""

    def seek(self, entry: int, key: bytes | None = None) -> None:
        """Go to entry number `entry` of the whole database, whose key may be known."""

    def close(self) -> None:
        """Let the database go. Idempotent."""


def open_database(path: Path, backend: str, rank: int = 0, world_size: int = 1) -> DatabaseReader:
    """Open a database for reading.

    Args:
        path: Its directory.
        backend: "lmdb" or "leveldb", in capitals too.
        rank: Which of the `world_size` parts.
        world_size: Number of parts.

    Raises:
        DataError: It is not there, damaged, or of the other backend.
    """
    backend = backend.lower()
    if not (path / _MARKS[backend]).exists():
        for other, mark in _MARKS.items():
            if (path / mark).exists():
                raise DataError(
                    f"{path}: expected the backend {backend.upper()}, found {mark}, which is of"
                    f" {other.upper()}: correct the backend (in data_param, a net that names none"
                    " means LEVELDB)"
                )
    return _READERS[backend](path, rank, world_size)


class DatabaseWriter(Protocol):
    """Takes the entries of a new database, in any order.

    Attributes:
        count: Entries in it, once it is finished.
    """

    count: int

    def put(self, key: bytes, value: bytes) -> None:
        """Add an entry, or replace that of the same key."""


def new_database(target: Path, backend: str) -> AbstractContextManager[DatabaseWriter]:
    """Return a context that gives the writer of a database, which is at `target` after it.

    A block that ends early, however it does, leaves nothing under the name `target`.

    Args:
        target: Directory to make; its parents are made too.
        backend: "lmdb" or "leveldb".

    Raises:
        UsageError: `target` exists, or another process is writing it.
        DataError: Writing failed, for instance on a full disk.
    """
    return _WRITERS[backend](target)


def write_database(target: Path, entries: Iterable[Entry], backend: str = "lmdb") -> int:
    """Write a new database and return the number of its entries; see `new_database`."""
    with new_database(target, backend) as writer:
        for key, value in entries:
            writer.put(key, value)
    return writer.count
