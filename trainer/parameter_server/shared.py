"""The centre in memory that all workers of one host share: a mapped file of float32 values."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer.errors import TrainerError

logger = logging.getLogger(__name__)

_PREFIX = "torrefy-center-"
_FOLDERS = (Path("/dev/shm"), Path(tempfile.gettempdir()))  # the first is memory, on Linux


@contextmanager
def shared_file(size: int) -> Iterator[Path]:
    """Give the path of a file of `size` float32 zeros while the context lasts.

    Only this user may open it. It is locked meanwhile: a driver that is killed leaves its file
    behind, but not the lock, by which the next run tells that it may be removed.

    Raises:
        TrainerError: There is no room for it.
    """
    descriptor, path = _create(size)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def map_shared(path: Path, size: int, home: str) -> Tensor:
    """Return the values of a shared file, shape (size,); changes are seen by all who map it.

    Args:
        path: Of `shared_file`.
        size: Number of values.
        home: Host that has it.

    Raises:
        TrainerError: There is no such file here.
    """
    try:
        values = np.memmap(path, np.float32, "r+", shape=(size,))
    except (OSError, ValueError) as error:
        raise TrainerError(
            f"{path}: not to be mapped on {socket.gethostname()} ({error}): the workers of this "
            f"strategy share the memory of one host, {home}, and have to run there as the user of "
            "the driver; use a local master, or another strategy"
        ) from error
    return torch.from_numpy(values)


def _create(size: int) -> tuple[int, Path]:
    """Return a new file of zeros, locked, and its path: in the first folder with room for it."""
    reasons = []
    for folder in _FOLDERS:
        _remove_orphans(folder)
        try:
            return _create_in(folder, size)
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
    raise TrainerError(f"no room to share {4 * size} bytes ({'; '.join(reasons)})")


def _create_in(folder: Path, size: int) -> tuple[int, Path]:
    name = f"{_PREFIX}{secrets.token_hex(8)}"
    new = folder / f"new-{name}"  # no run's, and nobody's to remove, before it is locked
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Claimed now: a mapped file that finds no memory later ends its process.
        os.posix_fallocate(descriptor, 0, 4 * size)
        return descriptor, new.rename(folder / name)
    except OSError:
        os.close(descriptor)
        new.unlink()
        raise


def _remove_orphans(folder: Path) -> None:
    """Remove files that no living driver holds locked."""
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # of another user, locked, or gone
            descriptor = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                logger.info("Removed %s, which a run that was killed left behind", path)
            finally:
                os.close(descriptor)
