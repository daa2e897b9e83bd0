"""CIFAR-10 or its stand-in, whichever this machine can have."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from trainer.data.datasets import CIFAR10, prepare
from trainer.data.download import DownloadError
from trainer.data.published import PublishedFiles
from trainer.data.shapes import write_shapes
from trainer.errors import DataError

logger = logging.getLogger(__name__)

DATA_VARIABLE = "TORREFY_DATA"


def prepare_cifar10(out: Path) -> str:
    """Make sure that folder `out` holds CIFAR-10, or the drawn shapes if that cannot be had.

    Real images come from the folder that the environment variable TORREFY_DATA names, if the
    publishers' files are there, else from the network.

    Args:
        out: What is there already is kept.

    Returns:
        What `out` holds, for people.

    Raises:
        UsageError: `out` holds something else under the same names.
        DataError: The publishers' files are damaged, or writing failed.
    """
    layout, real = CIFAR10.layout, CIFAR10.publication.name
    origin = layout.origin(out) or real
    if layout.is_complete(out):
        return f"{origin}, there already"
    if origin != real:
        write_shapes(out)
        return f"{origin}, now complete"
    folder = _folder_at_hand()
    if folder is not None:
        prepare(CIFAR10, out, folder)
        return f"{real}, from {folder}"
    try:
        prepare(CIFAR10, out)
    except DownloadError as error:
        logger.warning("%s", error)
        write_shapes(out)
        return f"{layout.origin(out)} standing in for {real}, which could not be downloaded"
    return f"{real}, downloaded"


def _folder_at_hand() -> Path | None:
    name = os.environ.get(DATA_VARIABLE)
    if not name:
        return None
    try:
        PublishedFiles(Path(name), CIFAR10.publication)
    except DataError as error:
        logger.warning("%s: %s", DATA_VARIABLE, error)
        return None
    return Path(name)
