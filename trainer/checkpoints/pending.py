"""A checkpoint that is being written."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, final

from trainer.checkpoints.folder import FAILURES, Folder
from trainer.checkpoints.manifest import MANIFEST, FileEntry
from trainer.errors import TrainerError

logger = logging.getLogger(__name__)

_PIECE_BYTES = 1 << 22

Finish = Callable[[Mapping[str, FileEntry], Mapping[str, Any], float | None], None]


@final
class Sink:
    """Where the bytes of one file go; they are counted and hashed on the way.

    It is what Arrow takes for a file. One thread writes at a time.
    """

    closed = False

    def __init__(self, folder: Folder, path: str) -> None:
        self._folder, self._path = folder, path
        self._digest, self._size = hashlib.sha256(), 0
        self._stream = folder.create(path)

    def write(self, data: Any) -> int:
        """Write all of what has the buffer protocol; return its size in bytes.

        Raises:
            TrainerError: The file system refuses, for instance because it is full.
        """
        view = memoryview(data).cast("B")
        try:
            self._stream.write(view)
        except FAILURES as error:
            raise self._folder.write_error(self._path, error) from error
        self._digest.update(view)
        self._size += len(view)
        return len(view)

    def flush(self) -> None:
        """Do nothing: what counts is that the file is closed."""

    def finish(self) -> FileEntry:
        """Close the file and return what it holds."""
        try:
            self._stream.close()
            self._folder.sync(self._path)
        except FAILURES as error:
            raise self._folder.write_error(self._path, error) from error
        return FileEntry(self._path.rpartition("/")[2], self._size, self._digest.hexdigest())

    def abandon(self) -> None:
        """Remove the file."""
        with suppress(*FAILURES):
            self._stream.close()
        self._folder.delete_file(self._path)


@final
class Pending:
    """A checkpoint that is none before `commit`. Several threads may write files at once.

    It is a context manager: if the block ends without `commit`, it is given up.

    Args:
        folder: Of the store.
        name: Of this checkpoint's folder there.
        finish: Completes it with the files, the values and the metric.
    """

    def __init__(self, folder: Folder, name: str, finish: Finish) -> None:
        self._folder, self._name, self._finish = folder, name, finish
        self._lock = threading.Lock()
        self._is_open = True
        self._begun: dict[str, int] = {}  # which writing of a name is the newest
        self._taken: set[str] = {MANIFEST}
        self._written: dict[str, tuple[int, FileEntry]] = {}

    @contextmanager
    def writing(self, name: str) -> Iterator[Sink]:
        """Give where the bytes of the file `name` go; if the block ends without an error it counts.

        When a name is written again, what was begun last counts, and the other is removed.

        Raises:
            TrainerError: The file system refuses, `name` is no plain name, or the checkpoint has
                been completed or given up.
        """
        number, stored = self._claim(name)
        sink = Sink(self._folder, f"{self._name}/{stored}")
        try:
            yield sink
            entry = sink.finish()
            self._keep(name, number, entry)
        except BaseException:
            sink.abandon()
            raise

    def copy_from(self, path: Path) -> None:
        """Write a local file under its own name.

        Raises:
            TrainerError: It cannot be read; or as `writing`.
        """
        with self.writing(path.name) as sink:
            try:
                with path.open("rb") as file:
                    while piece := file.read(_PIECE_BYTES):
                        sink.write(piece)
            except OSError as error:
                raise TrainerError(f"{path}: cannot be read ({error})") from error

    def _claim(self, name: str) -> tuple[int, str]:
        """Return the number of this writing of `name`, and a file name that is free."""
        plain = PurePosixPath(name)
        if plain.name != name or name == MANIFEST or not name or name.startswith("."):
            raise TrainerError(f"expected a plain file name other than {MANIFEST}; received {name}")
        with self._lock:
            self._check_open(name)
            number = self._begun[name] = self._begun.get(name, 0) + 1
            stored, repeat = name, 1
            while stored in self._taken:
                repeat += 1
                stored = f"{plain.stem}.{repeat}{plain.suffix}"
            self._taken.add(stored)
        return number, stored

    def _keep(self, name: str, number: int, entry: FileEntry) -> None:
        with self._lock:
            self._check_open(name)
            before = self._written.get(name)
            is_newest = before is None or before[0] < number
            if is_newest:
                self._written[name] = (number, entry)
        left = before[1] if before and is_newest else None if is_newest else entry
        if left is not None:
            self._folder.delete_file(f"{self._name}/{left.file}")

    def _check_open(self, name: str) -> None:
        if not self._is_open:
            raise TrainerError(
                f"{self._folder.uri}/{self._name}: {name} comes too late, the checkpoint has been"
                " completed or given up"
            )

    def commit(self, values: Mapping[str, Any], metric: float | None = None) -> None:
        """Complete the checkpoint with the files that have been written; nothing is left if not.

        Args:
            values: JSON values.
            metric: How good the model is, higher is better; None or NaN if that is not known.

        Raises:
            TrainerError: The file system refuses, or another run writes into the store too.
        """
        with self._lock:
            self._check_open("commit")
            self._is_open = False
            files = {name: entry for name, (_, entry) in self._written.items()}
        try:
            self._finish(files, values, metric)
        except BaseException:
            self._remove()
            raise

    def __enter__(self) -> Pending:
        return self

    def __exit__(self, *error: object) -> None:
        self.discard()

    def discard(self) -> None:
        """Give it up and remove what has been written. Idempotent; does nothing after `commit`."""
        with self._lock:
            was_open, self._is_open = self._is_open, False
        if was_open:
            self._remove()

    def _remove(self) -> None:
        self._folder.delete_file(f"{self._name}/{MANIFEST}")
        try:
            self._folder.delete_folder(self._name)
        except TrainerError as error:
            logger.warning("%s", error)
