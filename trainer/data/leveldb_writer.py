"""Writing a Caffe LevelDB: under another name until it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import final

from trainer.data.entries import Entry
from trainer.data.leveldb_index import LevelDbIndex
from trainer.data.leveldb_table_writer import write_table
from trainer.data.leveldb_version import TableFile, write_version
from trainer.data.new_folder import new_folder

_TABLE_BYTES = 32 * 2**20
_VALUE = 1
_LEVEL_WITH_OVERLAPS, _LAST_LEVEL = 0, 6


@contextmanager
def new_leveldb(target: Path) -> Iterator[LevelDbWriter]:
    """Give the writer of a database that is at `target` once the block has ended.

    Raises:
        UsageError: `target` exists, or another process is writing it.
        DataError: Writing failed, for instance on a full disk.
    """
    with new_folder(target) as folder:
        writer = LevelDbWriter(folder)
        yield writer
        writer.finish()


@final
class LevelDbWriter:
    """Writes a LevelDB into an empty folder; keys may come in any order.

    Differs from Caffe: the tables are not compressed, and lie where compactions would have brought
    them, so that a program that opens the database has nothing left to do. Only keys that come out
    of order leave it something.

    Attributes:
        count: Entries in it, after `finish`.

    Source: BVLC/caffe src/caffe/util/db_leveldb.cpp; google/leveldb doc/impl.md.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables: list[TableFile] = []
        self._pending: dict[bytes, Entry] = {}
        self._size = self._sequence = 0
        self.count = 0

    def put(self, key: bytes, value: bytes) -> None:
        """Add an entry, or replace that of the same key."""
        self._sequence += 1
        internal = key + (self._sequence << 8 | _VALUE).to_bytes(8, "little")
        self._pending[key] = internal, value
        self._size += len(internal) + len(value)
        if self._size >= _TABLE_BYTES:
            self._write_pending()

    def finish(self) -> None:
        """Make sure that everything is on the disk."""
        if self._pending:
            self._write_pending()
        keys = [(table.smallest[:-8], table.largest[:-8]) for table in self._tables]
        is_sorted = all(before[1] < after[0] for before, after in pairwise(keys))
        level = _LAST_LEVEL if is_sorted else _LEVEL_WITH_OVERLAPS
        write_version(self._folder, level, self._tables, self._sequence)
        for file in self._folder.iterdir():
            _sync(file)
        if not is_sorted:
            self.count = len(LevelDbIndex(self._folder).keys)

    def _write_pending(self) -> None:
        number = len(self._tables) + 1
        ordered = [self._pending[key] for key in sorted(self._pending)]
        self._tables.append(write_table(self._folder / f"{number:06d}.ldb", number, ordered))
        self.count += len(self._pending)
        self._pending.clear()
        self._size = 0


def _sync(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
