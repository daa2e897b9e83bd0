"""Files that are either complete or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from prototxt_parser.errors import WriteError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there, synced to disk, when the block ends.

    An existing file is replaced in one step, and a link keeps pointing to it. After an error or a
    kill it is as it was; an error removes the temporary file. What is no file, such as /dev/stdout,
    is written in place.

    Raises:
        WriteError: The file system refuses, for instance because it is full.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            yield path
            return
        yield temporary
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise WriteError(
            f"{path}: cannot write: {error.strerror or error}. What was there before is unchanged; "
            "check the directory, its permissions and the free space"
        ) from error
    finally:
        with suppress(OSError):  # a missing or read-only directory was reported above
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing, to appear complete when the block ends; see `atomic_path`."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        yield file


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
