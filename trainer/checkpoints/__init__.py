"""Checkpoints of a run: whole or not there, checksummed, on any file system that Arrow opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.errors import TrainerError

if TYPE_CHECKING:
    from trainer.checkpoints.store import CheckpointStore

__all__ = ["open_store"]


def open_store(uri: str, keep: int) -> CheckpointStore:
    """Return the store of checkpoints at `uri`; its folder is made, and written to on trial.

    Args:
        uri: A local folder, or `file://`, `hdfs://`, `s3://`, `gs://` … as `pyarrow.fs` opens it.
        keep: The newest so many are kept, and the best.

    Raises:
        UsageError: No file system has such a URI.
        TrainerError: pyarrow is missing, or the folder cannot be written.
    """
    try:
        from trainer.checkpoints.store import CheckpointStore
    except ImportError as error:
        raise TrainerError(
            f"checkpoints need pyarrow ({error}): pip install 'torrefy[spark]'"
        ) from error
    return CheckpointStore(uri, keep)
