"""The live entries of a LevelDB in key order, and where their values lie."""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from heapq import merge
from pathlib import Path
from typing import NamedTuple, final
from weakref import WeakValueDictionary

from trainer.data.leveldb_coding import damage_of, read_bytes, read_varint
from trainer.data.leveldb_log import Record, read_records
from trainer.data.leveldb_table import read_blocks, scan_block
from trainer.data.leveldb_version import TableFile, Version, read_version
from trainer.errors import DataError

_DELETION, _VALUE = 0, 1
_TAG_SIZE = 8  # after each key in a table: sequence number and kind
_BATCH_HEADER = 12  # sequence number of the first entry, number of entries
_IN_LOG = 0

TABLE_SUFFIXES = (".ldb", ".sst")


class Place(NamedTuple):
    """Where a value lies.

    Attributes:
        file: Number of the table or log.
        offset: In a table, of the block; in a log, of the value itself.
        size: Of the block; 0 in a log.
        start: Of the value within the uncompressed block.
        length: Of the value.
    """

    file: int
    offset: int
    size: int
    start: int
    length: int


class _Change(NamedTuple):
    """A value or a deletion; sorts by key, and of one key the latest first."""

    key: bytes
    age: int  # minus the sequence number
    kind: int
    place: Place


@final
class LevelDbIndex:
    """Keys and places of all entries. Holds no values, and no file open.

    Attributes:
        folder: Of the database.
        keys: In order.

    Raises:
        DataError: The database is damaged, cut off or ordered by a foreign comparator.

    Source: google/leveldb doc/impl.md; db/db_iter.cc, FindNextUserEntry.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys: list[bytes] = []
        self._places = array("Q")
        version = read_version(folder)
        self._logs = set(_log_numbers(folder, version))
        previous: bytes | None = None
        for change in merge(*self._sources(version)):
            if change.key != previous and change.kind == _VALUE:
                self.keys.append(change.key)
                self._places.extend(change.place)
            previous = change.key

    def place(self, entry: int) -> Place:
        """Return where the value of entry number `entry` lies."""
        width = len(Place._fields)
        return Place(*self._places[entry * width : (entry + 1) * width])

    def file(self, number: int) -> Path:
        """Return the path of table or log `number`."""
        if number in self._logs:
            return self.folder / f"{number:06d}.log"
        names = [self.folder / f"{number:06d}{suffix}" for suffix in TABLE_SUFFIXES]
        return next((name for name in names if name.exists()), names[0])

    def _sources(self, version: Version) -> Iterator[Iterable[_Change]]:
        levels: dict[int, list[TableFile]] = {}
        for (level, _), table in version.tables.items():
            levels.setdefault(level, []).append(table)
        for table in levels.pop(0, []):
            yield self._table_changes([table])
        for tables in levels.values():
            yield self._table_changes(sorted(tables, key=_first))
        for number in sorted(self._logs):
            yield sorted(self._log_changes(number))

    def _table_changes(self, tables: Iterable[TableFile]) -> Iterator[_Change]:
        for table in tables:
            path = self.file(table.number)
            with damage_of(path), _opened(path) as handle:
                size = os.fstat(handle).st_size
                if size < table.size:
                    raise ValueError(f"expected {table.size} bytes, found {size}")
                for block in read_blocks(handle, table.size):
                    for key, start, length in scan_block(handle, block):
                        tag = int.from_bytes(key[-_TAG_SIZE:], "little")
                        place = Place(table.number, *block, start, length)
                        yield _Change(key[:-_TAG_SIZE], -(tag >> 8), tag & 0xFF, place)

    def _log_changes(self, number: int) -> Iterator[_Change]:
        path = self.file(number)
        with damage_of(path):
            for record in read_records(path):
                yield from _batch_changes(record, number)


def _first(table: TableFile) -> tuple[bytes, int]:
    return table.smallest[:-_TAG_SIZE], -int.from_bytes(table.smallest[-_TAG_SIZE:], "little")


def _batch_changes(record: Record, number: int) -> Iterator[_Change]:
    """Yield what one write to the database changed.

    Source: google/leveldb db/write_batch.cc, WriteBatch::Iterate.
    """
    batch = record.payload
    if len(batch) < _BATCH_HEADER:
        raise ValueError(f"a write of {len(batch)} bytes")
    sequence = int.from_bytes(batch[:8], "little")
    count = int.from_bytes(batch[8:_BATCH_HEADER], "little")
    position = _BATCH_HEADER
    for entry in range(count):
        kind = batch[position]
        key, position = read_bytes(batch, position + 1)
        place = Place(number, record.offset, _IN_LOG, 0, 0)
        if kind == _VALUE:
            length, position = read_varint(batch, position)
            place = Place(number, record.place(position), _IN_LOG, 0, length)
            position += length
        elif kind != _DELETION:
            raise ValueError(f"a write of the unknown kind {kind}")
        yield _Change(key, -(sequence + entry), kind, place)
    if position != len(batch):
        raise ValueError(f"expected a write of {position} bytes, found {len(batch)}")


def _log_numbers(folder: Path, version: Version) -> Iterator[int]:
    with damage_of(folder):
        for file in folder.glob("*.log"):
            if file.stem.isdecimal():
                number = int(file.stem)
                if number >= version.log or number == version.previous_log:
                    yield number


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


_indexes: WeakValueDictionary[tuple[str, int], LevelDbIndex] = WeakValueDictionary()
_lock = threading.Lock()


def index_of(folder: Path) -> LevelDbIndex:
    """Return the index of a database, made once for all who use it at a time.

    Raises:
        DataError: The database is not there or damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected the directory of a LevelDB; it is not there")
    if not (folder / "CURRENT").is_file():
        raise DataError(f"{folder}: expected a LevelDB; the directory holds no file CURRENT")
    # Whoever writes a LevelDB writes this file first.
    name = os.path.realpath(folder), (folder / "CURRENT").stat().st_mtime_ns
    with _lock:
        index = _indexes.get(name)
        if index is None:
            index = _indexes[name] = LevelDbIndex(folder)
        return index
