"""Reading a Caffe LMDB: entries in key order, round and round, from any of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

import lmdb

from trainer.data.entry_range import entry_range
from trainer.data.lmdb_environment import acquire, release
from trainer.errors import DataError

logger = logging.getLogger(__name__)


@final
class LmdbReader:
    """A cursor over a contiguous part of a database; after the part's last entry comes its first.

    With `world_size` K, reader `rank` sees entries [n*rank//K, n*(rank+1)//K) of the n there are.
    Nothing is written and no lock file is made, so a read-only medium will do. A reader may be
    handed from thread to thread, but not be used by two at once.

    Args:
        path: Directory of the database.
        rank: Which of the `world_size` parts.
        world_size: Number of parts.

    Attributes:
        path: As given.
        count: Entries in the whole database.
        begin: Number of the first entry of the part.
        end: Number after the last one.
        entry: Number of the current entry.

    Raises:
        DataError: The directory is missing or no LMDB, the file was cut off, or there are fewer
            entries than readers.

    Source: BVLC/caffe src/caffe/util/db_lmdb.cpp; src/caffe/layers/data_layer.cpp, Next.
    """

    def __init__(self, path: Path, rank: int = 0, world_size: int = 1) -> None:
        self.path = path
        self._shared = acquire(path)
        try:
            self._open(rank, world_size)
        except DataError:
            release(self._shared)
            raise
        self._is_closed = False
        logger.info("Opened lmdb %s", path)

    def _open(self, rank: int, world_size: int) -> None:
        with self._reading():
            self._transaction = self._shared.environment.begin()
            self._cursor = self._transaction.cursor()
            self.count = int(self._transaction.stat()["entries"])
        self.begin, self.end = entry_range(self.path, self.count, rank, world_size)
        self.seek(self.begin)
        self._first_key = self.key

    @property
    def key(self) -> bytes:
        """Key of the current entry."""
        return bytes(self._cursor.key())

    @property
    def value(self) -> bytes:
        """Value of the current entry."""
        with self._reading():
            return bytes(self._cursor.value())

    def advance(self) -> None:
        """Go to the next entry of the part, or from its last to its first."""
        if self.entry + 1 == self.end:
            logger.info("Restarting data prefetching from start.")
            self.seek(self.begin, self._first_key)
            return
        with self._reading():
            found = self._cursor.next()
        self._check_found(found, self.entry + 1)
        self.entry += 1

    def seek(self, entry: int, key: bytes | None = None) -> None:
        """Go to entry number `entry` of the whole database.

        Args:
            entry: In [`begin`, `end`).
            key: The entry's key where it is known: then the entry is found at once, and not by
                passing all those before it.
        """
        with self._reading():
            if key is None:
                found = self._cursor.first()
                for _ in range(entry):
                    found = self._cursor.next()
            else:
                found = self._cursor.set_key(key)
        self._check_found(found, entry)
        self.entry = entry

    def close(self) -> None:
        """Let the database go. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._cursor.close()
            self._transaction.abort()
            release(self._shared)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            raise DataError(
                f"{self.path}: the LMDB cannot be read ({error}): it is damaged;"
                " copy it again or convert the images again"
            ) from error

    def _check_found(self, found: bool, entry: int) -> None:
        if not found:
            raise DataError(
                f"{self.path}: entry {entry} of {self.count} is not there: the database is damaged"
                " or has changed; copy it again or convert the images again"
            )
