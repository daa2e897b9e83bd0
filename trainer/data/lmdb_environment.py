"""Opening LMDB environments for reading: once per process each, and only sound ones."""

from __future__ import annotations

import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from trainer.errors import DataError

# A file begins with two meta pages, of which the one with the higher transaction number holds.
# Fields after the page's header of 16 bytes: magic, version, address, map size, page size, the
# rest of two database records, last page in use, transaction number.
_META_OFFSET = 16
_META = struct.Struct("=IIQQI92xQQ")
_MAGIC = 0xBEEFC0DE


@dataclass
class SharedEnvironment:
    """An environment that all readers of one directory use: a process must not open it twice."""

    name: str
    environment: Any
    users: int = 0


_open: dict[str, SharedEnvironment] = {}
_lock = threading.Lock()


def acquire(path: Path) -> SharedEnvironment:
    """Open the LMDB in directory `path`, or join those who have it open.

    Raises:
        DataError: There is none, or it is cut off or damaged.
    """
    name = os.path.realpath(path)
    with _lock:
        if name not in _open:
            _open[name] = SharedEnvironment(name, _open_checked(path))
        _open[name].users += 1
        return _open[name]


def release(shared: SharedEnvironment) -> None:
    """Give back what `acquire` returned; the last one to do so closes it."""
    with _lock:
        shared.users -= 1
        if not shared.users:
            del _open[shared.name]
            shared.environment.close()


def _open_checked(path: Path) -> Any:
    try:
        if not path.is_dir():
            raise DataError(f"{path}: expected the directory of an LMDB; it is not there")
        if not (path / "data.mdb").is_file():
            raise DataError(f"{path}: expected an LMDB; the directory holds no data.mdb")
        _check_size(path / "data.mdb")
        return lmdb.open(os.fspath(path), readonly=True, lock=False, create=False, max_dbs=0)
    except (OSError, lmdb.Error) as error:
        raise DataError(
            f"{path}: the LMDB cannot be opened ({error}): check its permissions, copy it again or"
            " convert the images again"
        ) from error


def _check_size(file: Path) -> None:
    """Refuse a file that was cut off: LMDB maps it unchecked, and the process would die of it."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        first = _read_meta(stream.read(_META_OFFSET + _META.size))
        stream.seek(first.page_size if first else 0)
        second = _read_meta(stream.read(_META_OFFSET + _META.size))
    if not first or not second:
        raise DataError(
            f"{file}: {size} bytes that are no LMDB of this kind of machine; copy it again or"
            " convert the images again"
        )
    newest = max(first, second, key=lambda meta: meta.transaction)
    expected = (newest.last_page + 1) * newest.page_size
    if size < expected:
        raise DataError(
            f"{file}: the database is cut off: expected {expected} bytes, found {size}; copy it"
            " again in full or convert the images again"
        )


@dataclass(frozen=True)
class _Meta:
    page_size: int
    last_page: int
    transaction: int


def _read_meta(page: bytes) -> _Meta | None:
    if len(page) < _META_OFFSET + _META.size:
        return None
    magic, _, _, _, page_size, last_page, transaction = _META.unpack_from(page, _META_OFFSET)
    return _Meta(page_size, last_page, transaction) if magic == _MAGIC else None
