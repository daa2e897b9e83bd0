"""The checkpoints of a run in one folder."""

from __future__ import annotations

import logging
import math
import os
import re
import secrets
import socket
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, final

from pyarrow import fs

from trainer.checkpoints.checkpoint import Checkpoint
from trainer.checkpoints.folder import Folder
from trainer.checkpoints.manifest import MANIFEST, FileEntry, Manifest
from trainer.checkpoints.pending import Pending
from trainer.checkpoints.sealed import seal, unseal
from trainer.errors import DataError, TrainerError, UsageError

logger = logging.getLogger(__name__)

RUN = "run.json"

_NAME = re.compile(r"iter_\d+-[0-9a-f]{8}")


@final
class CheckpointStore:
    """Checkpoints in a folder, which one run writes at a time; reading needs no `write_run`.

    A checkpoint is a folder `iter_N-XXXXXXXX` with a `manifest.json`, written last, that lists its
    files with sizes and checksums. A folder without one is no checkpoint. What else lies in the
    store is left alone.

    Args:
        uri: A local folder, or `file://`, `hdfs://`, `s3://`, `gs://` … as `pyarrow.fs` opens it.
        keep: The newest so many are kept, and the best.
        files: The file system of the path `uri`, instead of the one that it names.

    Attributes:
        uri: The folder.
        run: Identity of the run that writes.

    Raises:
        UsageError: No file system has such a URI.
        TrainerError: The folder cannot be made or written.
    """

    def __init__(self, uri: str, keep: int, files: fs.FileSystem | None = None) -> None:
        self._folder = Folder(uri, files)
        self.uri = self._folder.uri
        self.run = secrets.token_hex(8)
        self._keep = keep
        self._own: set[str] = set()  # folders that this store has begun
        self._reported: set[str] = set()  # damaged manifests

    def write_run(self, values: Mapping[str, Any], *, resumes: bool = False) -> None:
        """Take the store for this run; one that wrote into it before can complete no more.

        Checkpoints of a run that has finished are removed, unless this one resumes it.

        Args:
            values: How the run was started, JSON values.
            resumes: The run goes on from what is there.

        Raises:
            UsageError: It holds checkpoints of a run that has not finished, and this one does not
                resume it.
            TrainerError: The file system refuses.
        """
        if not resumes and (found := self.all()):
            content = self._read_run() or {}
            if not content.get("finished"):
                raise UsageError(
                    f"{self.uri}: it holds a run that has not finished, saved at iteration "
                    f"{found[-1].iteration}: go on with `train --resume {self.uri}`, or give "
                    "--checkpoints another folder, or remove this one"
                )
            for checkpoint in found:
                self._remove(checkpoint.name)
        self._write_run(dict(values), finished=False)

    def finish(self) -> None:
        """Note that the run has come to its end.

        Raises:
            TrainerError: The file system refuses, or another run has taken the store.
        """
        self._check_run()
        self._write_run(self.read_run() or {}, finished=True)

    def _write_run(self, values: Mapping[str, Any], *, finished: bool) -> None:
        writer = f"process {os.getpid()} on {socket.gethostname()}"
        content = {"run": self.run, "writer": writer, "started": _now(), "finished": finished}
        self._folder.write(RUN, seal({**content, "values": dict(values)}))

    def read_run(self) -> dict[str, Any] | None:
        """Return the values of the last `write_run`, None if there are none.

        Raises:
            DataError: They are damaged.
        """
        content = self._read_run()
        return None if content is None else dict(content["values"])

    def _read_run(self) -> dict[str, Any] | None:
        if self._folder.sizes([RUN]) == [None]:
            return None
        return unseal(self._folder.read(RUN), f"{self.uri}/{RUN}")

    def _check_run(self) -> None:
        content = self._read_run()
        if content is None or content["run"] != self.run:
            other = (
                "none" if content is None else "{run}, {writer}, since {started}".format(**content)
            )
            raise TrainerError(
                f"{self.uri}: expected to be written by this run only, {self.run}; {RUN} names"
                f" {other}: give every run a folder of its own"
            )

    def begin(self, iteration: int) -> Pending:
        """Return a checkpoint to be written; what killed writers have left is removed.

        Raises:
            TrainerError: The file system refuses, or another run has taken the store.
        """
        self._check_run()
        self._remove_left()
        name = f"iter_{iteration}-{secrets.token_hex(4)}"
        self._own.add(name)
        self._folder.make(name)
        return Pending(self._folder, name, partial(self._finish, name, iteration))

    def _finish(
        self,
        name: str,
        iteration: int,
        files: Mapping[str, FileEntry],
        values: Mapping[str, Any],
        metric: float | None,
    ) -> None:
        self._check_run()
        self._check_sizes(name, files.values())
        known = metric if metric is not None and math.isfinite(metric) else None
        before = self.all()
        serial = before[-1].manifest.serial + 1 if before else 1
        manifest = Manifest(self.run, serial, iteration, _now(), known, values, files)
        self._folder.write(f"{name}/{MANIFEST}", manifest.to_bytes())
        self._prune([*before, Checkpoint(self._folder, name, manifest)])

    def _check_sizes(self, name: str, entries: Iterable[FileEntry]) -> None:
        expected = {f"{name}/{entry.file}": entry.size for entry in entries}
        for path, received in zip(expected, self._folder.sizes(list(expected)), strict=True):
            if received != expected[path]:
                raise TrainerError(
                    f"{self.uri}/{path}: expected the {expected[path]} bytes that were written;"
                    f" received {'none' if received is None else received}: something else changes"
                    " the folder"
                )

    def _remove_left(self) -> None:
        """Remove what is no checkpoint and was begun by others, who cannot complete it any more."""
        names = [name for name in self._names() if name not in self._own]
        sizes = self._folder.sizes([f"{name}/{MANIFEST}" for name in names])
        for name, size in zip(names, sizes, strict=True):
            if size is None:
                self._remove(name)

    def _prune(self, checkpoints: list[Checkpoint]) -> None:
        best = max(checkpoints, key=lambda checkpoint: checkpoint.manifest.rank_by_metric)
        for checkpoint in checkpoints[: -self._keep]:
            if checkpoint is not best or best.manifest.metric is None:
                self._remove(checkpoint.name)

    def _remove(self, name: str) -> None:
        # The manifest goes first: what is half removed must not pass for a checkpoint.
        self._folder.delete_file(f"{name}/{MANIFEST}")
        try:
            self._folder.delete_folder(name)
        except TrainerError as error:
            logger.warning("%s", error)

    def all(self) -> list[Checkpoint]:
        """Return all checkpoints from the oldest to the newest; their files are not looked at.

        Raises:
            TrainerError: The folder cannot be listed.
        """
        found = []
        names = self._names()
        sizes = self._folder.sizes([f"{name}/{MANIFEST}" for name in names])
        for name, size in zip(names, sizes, strict=True):
            if size is None:
                continue
            path = f"{name}/{MANIFEST}"
            try:
                manifest = Manifest.from_bytes(self._folder.read(path), f"{self.uri}/{path}")
            except DataError as error:
                self._report(name, error)
            else:
                found.append(Checkpoint(self._folder, name, manifest))
        return sorted(found, key=lambda checkpoint: checkpoint.manifest.serial)

    def _names(self) -> list[str]:
        return [name for name in self._folder.folders() if _NAME.fullmatch(name)]

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole; newer ones that are not are logged.

        All its files are read once to compare them with their checksums.

        Raises:
            TrainerError: The folder cannot be listed.
        """
        return self._first_whole(reversed(self.all()))

    def best(self) -> Checkpoint | None:
        """Return the whole one with the highest metric; see `latest`."""
        known = [found for found in self.all() if found.manifest.metric is not None]
        known.sort(key=lambda checkpoint: checkpoint.manifest.rank_by_metric)
        return self._first_whole(reversed(known))

    def _first_whole(self, checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
        for checkpoint in checkpoints:
            try:
                checkpoint.verify()
            except DataError as error:
                self._report(checkpoint.name, error)
            else:
                return checkpoint
        return None

    def _report(self, name: str, error: DataError) -> None:
        if name not in self._reported:
            self._reported.add(name)
            logger.warning("%s; this checkpoint is passed over", error)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
