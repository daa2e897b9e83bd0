"""Writing a Caffe LMDB: under another name until it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

import lmdb

from trainer.data.entries import Entry
from trainer.data.new_folder import new_folder

_COMMIT_INTERVAL = 1000
_INITIAL_MAP_BYTES = 16 * 2**20


@contextmanager
def new_lmdb(target: Path) -> Iterator[LmdbWriter]:
    """Give the writer of a database that is at `target` once the block has ended.

    Raises:
        UsageError: `target` exists, or another process is writing it.
        DataError: Writing failed, for instance on a full disk.
    """
    with new_folder(target, lmdb.Error) as folder:
        writer = LmdbWriter(folder)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()
        (folder / "lock.mdb").unlink()


@final
class LmdbWriter:
    """Writes an LMDB into an empty folder.

    Attributes:
        count: Entries in it, after `finish`.

    Source: BVLC/caffe src/caffe/util/db_lmdb.cpp, LMDBTransaction::Commit (map size doubled on
        demand); examples/cifar10/convert_cifar_data.cpp (a commit every 1000 entries).
    """

    def __init__(self, folder: Path) -> None:
        # Nothing reads this file before it is whole, so one sync at the end will do.
        self._environment = lmdb.open(os.fspath(folder), map_size=_INITIAL_MAP_BYTES, sync=False)
        self._pending: list[Entry] = []
        self.count = 0

    def put(self, key: bytes, value: bytes) -> None:
        """Add an entry, or replace that of the same key."""
        self._pending.append((key, value))
        if len(self._pending) == _COMMIT_INTERVAL:
            self._commit()

    def finish(self) -> None:
        """Make sure that everything is on the disk."""
        self._commit()
        self._environment.sync(True)
        self.count = int(self._environment.stat()["entries"])

    def close(self) -> None:
        """Let the file go."""
        self._environment.close()

    def _commit(self) -> None:
        environment = self._environment
        while True:
            try:
                with environment.begin(write=True) as transaction:
                    for key, value in self._pending:
                        transaction.put(key, value)
                self._pending.clear()
                return
            except lmdb.MapFullError:
                environment.set_mapsize(2 * environment.info()["map_size"])
