"""Writing a Caffe LMDB: under another name until it is whole."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from prototxt_parser.proto import caffe_pb2
from trainer.errors import DataError, UsageError

_COMMIT_INTERVAL = 1000
_INITIAL_MAP_BYTES = 16 * 2**20

Entry = tuple[bytes, bytes]


def write_lmdb(target: Path, entries: Iterable[Entry]) -> int:
    """Write a new database and return the number of its entries.

    A conversion that ends early, however it does, leaves nothing under the name `target`.

    Args:
        target: Directory to make; its parents are made too.
        entries: Keys and values; a key that comes again replaces the first.

    Raises:
        UsageError: `target` exists, or another process is writing it.
        DataError: Writing failed, for instance on a full disk.

    Source: BVLC/caffe src/caffe/util/db_lmdb.cpp, LMDBTransaction::Commit (map size doubled on
        demand); examples/cifar10/convert_cifar_data.cpp (a commit every 1000 entries).
    """
    if target.exists():
        raise UsageError(f"{target}: exists already; remove it or choose another folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _partial_folder(target) as partial:
            count = _fill(partial, entries)
            partial.rename(target)
    except (OSError, lmdb.Error) as error:
        raise DataError(
            f"{target}: writing failed ({error}){_free_space(target.parent)};"
            " nothing is left of it: free space there or choose another folder"
        ) from error
    return count


def _free_space(folder: Path) -> str:
    # LMDB calls a full disk an input/output error, so people need to see this number.
    if not folder.is_dir():
        return ""
    free = shutil.disk_usage(folder).free
    return f", is the disk full? It has {free / 1e6:.0f} MB free without this file"


@contextmanager
def _partial_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target`, for the user to rename; a failure removes it.

    The folder's lock tells one that a killed process left, which is emptied and used again, from
    one in use.
    """
    partial = target.with_name(f".{target.name}.partial")
    partial.mkdir(exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UsageError(f"{target}: another process is writing it; wait for it") from error
    try:
        for left in partial.iterdir():
            left.unlink()
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(handle)


def _fill(folder: Path, entries: Iterable[Entry]) -> int:
    # Nothing reads this file before it is whole, so one sync at the end will do.
    environment = lmdb.open(os.fspath(folder), map_size=_INITIAL_MAP_BYTES, sync=False)
    try:
        pending: list[Entry] = []
        for entry in entries:
            pending.append(entry)
            if len(pending) == _COMMIT_INTERVAL:
                _commit(environment, pending)
                pending.clear()
        _commit(environment, pending)
        environment.sync(True)
        count = int(environment.stat()["entries"])
    finally:
        environment.close()
    (folder / "lock.mdb").unlink()
    return count


def _commit(environment: Any, entries: list[Entry]) -> None:
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in entries:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


def datum_entries(
    images: Iterable[tuple[int, bytes]], shape: tuple[int, int, int], key_digits: int
) -> Iterator[Entry]:
    """Turn labelled raw images into database entries, numbered from 0.

    Args:
        images: Label and pixels in the order channel, row, column.
        shape: Channels, height, width.
        key_digits: Width of the keys, filled with zeros.
    """
    channels, height, width = shape
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width)
    for number, (label, pixels) in enumerate(images):
        datum.label = label
        datum.data = pixels
        yield f"{number:0{key_digits}d}".encode(), datum.SerializeToString()
