"""Sending executors the code that workers run: torrefy's own, and the user's modules."""

from __future__ import annotations

import sys
from pathlib import Path

from pyspark import SparkContext

from trainer.cluster.packing import modules_archive, torrefy_archive
from trainer.cluster.settings import is_local
from trainer.extensions import Extensions


def ship(context: SparkContext, extensions: Extensions) -> None:
    """Have every task that starts from now on import our code and the user's. Twice is once.

    Executors of `local` masters need nothing: they are this machine and this Python.

    Args:
        context: Where the tasks will run.
        extensions: The user's modules, which are imported here, too.

    Raises:
        TrainerError: The code cannot be packed.
        UsageError: A module cannot be imported.
    """
    if is_local(str(context.master)):
        return
    extensions.install()
    folder = Path(context._temp_dir or "")  # lives as long as the context, which sends it later too
    archives = (torrefy_archive(folder), modules_archive(extensions, folder))
    there = {uri.rpartition("/")[2] for uri in context.listFiles}
    for archive in archives:
        if archive is not None and archive.name not in there:
            _add(context, archive)


def _add(context: SparkContext, archive: Path) -> None:
    path = list(sys.path)
    context.addPyFile(str(archive))
    sys.path[:] = path  # pyspark would have the driver import from the archive, too
