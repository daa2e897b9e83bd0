"""Reading a Caffe LevelDB: entries in key order, round and round, from any of them.

This is our own reader of the format, and it only reads. LevelDB itself locks a database for one
process, so several workers could not read one; and it rewrites the files whenever it opens them,
which read-only media forbid and nobody expects of reading.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import final

from trainer.data.entry_range import entry_range
from trainer.data.leveldb_coding import damage_of
from trainer.data.leveldb_index import Place, index_of
from trainer.data.leveldb_log import read_span
from trainer.data.leveldb_table import BlockHandle, read_block
from trainer.errors import DataError

logger = logging.getLogger(__name__)


@final
class LevelDbReader:
    """A cursor over a contiguous part of a database; after the part's last entry comes its first.

    With `world_size` K, reader `rank` sees entries [n*rank//K, n*(rank+1)//K) of the n there are.
    Opening it reads all keys; values are read, and their checksums compared, when they are asked
    for. A reader may be handed from thread to thread, but not be used by two at once.

    Differs from LevelDB: a write-ahead log that was cut off is refused; LevelDB drops its end.

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
        DataError: The directory is missing or no LevelDB, a file is damaged or was cut off, or
            there are fewer entries than readers.

    Source: BVLC/caffe src/caffe/util/db_leveldb.cpp; src/caffe/layers/data_layer.cpp, Next.
    """

    def __init__(self, path: Path, rank: int = 0, world_size: int = 1) -> None:
        self.path = path
        self._index = index_of(path)
        self.count = len(self._index.keys)
        self.begin, self.end = entry_range(path, self.count, rank, world_size)
        self.entry = self.begin
        self._file: tuple[int, int] | None = None  # number and handle
        self._block: tuple[Place, bytes] | None = None
        logger.info("Opened leveldb %s", path)

    @property
    def key(self) -> bytes:
        """Key of the current entry."""
        return self._index.keys[self.entry]

    @property
    def value(self) -> bytes:
        """Value of the current entry."""
        place = self._index.place(self.entry)
        with damage_of(self._index.file(place.file)):
            handle = self._open(place.file)
            if not place.size:
                return read_span(handle, place.offset, place.length)
            block = self._block_at(handle, place)
            if place.start + place.length > len(block):
                raise ValueError(f"the block at byte {place.offset} has changed")
            return block[place.start : place.start + place.length]

    def advance(self) -> None:
        """Go to the next entry of the part, or from its last to its first."""
        if self.entry + 1 == self.end:
            logger.info("Restarting data prefetching from start.")
            self.entry = self.begin
        else:
            self.entry += 1

    def seek(self, entry: int, key: bytes | None = None) -> None:
        """Go to entry number `entry` of the whole database.

        Args:
            entry: In [`begin`, `end`).
            key: The entry's key where it is known: that it still has.
        """
        if key is not None and self._index.keys[entry] != key:
            raise DataError(
                f"{self.path}: entry {entry} of {self.count} is not {key!r}: the database has"
                " changed; start without the saved position"
            )
        self.entry = entry

    def close(self) -> None:
        """Let the database go. Idempotent."""
        self._block = None
        if self._file is not None:
            os.close(self._file[1])
            self._file = None

    def _open(self, number: int) -> int:
        if self._file is None or self._file[0] != number:
            self.close()
            self._file = number, os.open(self._index.file(number), os.O_RDONLY)
        return self._file[1]

    def _block_at(self, handle: int, place: Place) -> bytes:
        """Return an uncompressed block; neighbours in key order mostly lie in the same."""
        if self._block is None or self._block[0][:2] != place[:2]:
            self._block = place, read_block(handle, BlockHandle(place.offset, place.size))
        return self._block[1]
