"""Folders that are either complete or not there."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import DataError, UsageError


@contextmanager
def new_folder(target: Path, *write_errors: type[Exception]) -> Iterator[Path]:
    """Give an empty folder to fill, which is `target` once the block has ended without an error.

    A block that ends early, however it does, leaves nothing under the name `target`.

    Args:
        target: Folder to make; its parents are made too.
        write_errors: What failures of writing raise, besides OSError.

    Raises:
        UsageError: `target` exists, or another process is writing it.
        DataError: Writing failed, for instance on a full disk.
    """
    if target.exists():
        raise UsageError(f"{target}: exists already; remove it or choose another folder")
    failures: tuple[type[Exception], ...] = (OSError, *write_errors)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _partial_folder(target) as partial:
            yield partial
            partial.rename(target)
    except failures as error:
        raise DataError(
            f"{target}: writing failed ({error}){_free_space(target.parent)};"
            " nothing is left of it: free space there or choose another folder"
        ) from error


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
