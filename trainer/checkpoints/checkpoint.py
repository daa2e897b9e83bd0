"""A checkpoint that has been completed, to read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from trainer.checkpoints.folder import FAILURES, Folder
from trainer.checkpoints.manifest import Manifest
from trainer.errors import DataError

_PIECE_BYTES = 1 << 22


@final
class Checkpoint:
    """One checkpoint of a store. What is read of it has been compared with its checksum before.

    Attributes:
        where: Its place, for messages.
        name: Its folder's name in the store.
        manifest: What it says of itself.
    """

    def __init__(self, folder: Folder, name: str, manifest: Manifest) -> None:
        self._folder, self.name, self.manifest = folder, name, manifest
        self.where = f"{folder.uri}/{name}"
        self._verified: set[str] = set()

    @property
    def iteration(self) -> int:
        """Of the run."""
        return self.manifest.iteration

    @property
    def values(self) -> Mapping[str, Any]:
        """JSON values that were given with it."""
        return self.manifest.values

    @property
    def names(self) -> Sequence[str]:
        """Names of its files."""
        return tuple(self.manifest.files)

    def verify(self) -> None:
        """Compare all files with their sizes and checksums.

        Raises:
            DataError: One is missing or damaged; it says which, what was expected and received.
        """
        entries = self.manifest.files.values()
        sizes = self._folder.sizes([f"{self.name}/{entry.file}" for entry in entries])
        for entry, size in zip(entries, sizes, strict=True):
            if size != entry.size:
                received = "none" if size is None else f"{size} bytes"
                raise DataError(
                    f"{self.where}/{entry.file}: expected {entry.size} bytes; received {received}"
                )
        for name in self.names:
            self._verify_content(name)

    def _verify_content(self, name: str) -> None:
        if name in self._verified:
            return
        entry = self.manifest.files[name]
        path = f"{self.name}/{entry.file}"
        digest, size, buffer = hashlib.sha256(), 0, memoryview(bytearray(_PIECE_BYTES))
        try:
            with self._folder.open(path) as stream:
                while count := stream.readinto(buffer):
                    digest.update(buffer[:count])
                    size += count
        except FAILURES as error:
            raise DataError(f"{self._folder.uri}/{path}: cannot be read ({error})") from error
        if (size, digest.hexdigest()) != (entry.size, entry.sha256):
            raise DataError(
                f"{self.where}/{entry.file}: expected {entry.size} bytes with the sha256"
                f" {entry.sha256}; received {size} bytes with {digest.hexdigest()}"
            )
        self._verified.add(name)

    @contextmanager
    def reading(self, name: str) -> Iterator[Any]:
        """Give a stream that reads the file `name`.

        Raises:
            DataError: There is none of that name, or it is damaged.
        """
        if name not in self.manifest.files:
            raise DataError(f"{self.where}: expected the file {name}; it has {list(self.names)}")
        self._verify_content(name)
        path = f"{self.name}/{self.manifest.files[name].file}"
        with self._folder.open(path) as stream:
            try:
                yield stream
            except DataError as error:
                raise DataError(f"{self._folder.uri}/{path}: {error}") from error

    def copy_to(self, folder: Path, names: Sequence[str]) -> None:
        """Copy files into a local folder, which is made.

        Raises:
            DataError: A file is missing or damaged, or `folder` cannot be written.
        """
        for name in names:
            with self.reading(name) as stream:
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    with (folder / name).open("wb") as target:
                        while piece := stream.read(_PIECE_BYTES):
                            target.write(piece)
                except FAILURES as error:
                    raise DataError(f"copying to {folder / name} failed ({error})") from error
