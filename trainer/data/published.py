"""The files of a data set as their publishers offer them: loose, compressed or in one archive."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import final

from trainer.data.download import Download
from trainer.errors import DataError


@dataclass(frozen=True)
class Publication:
    """What a publisher offers.

    Attributes:
        name: Of the data set.
        folders: Names of folders in which people keep the files.
        files: The files.
        downloads: One .tar.gz with all of the files, or one .gz for each.
    """

    name: str
    folders: tuple[str, ...]
    files: tuple[str, ...]
    downloads: tuple[Download, ...]


@final
class PublishedFiles:
    """The files of a publication, wherever below `root` and however packed they are.

    Raises:
        DataError: One of them is nowhere.
    """

    def __init__(self, root: Path, publication: Publication) -> None:
        self._places = [root, *(root / folder for folder in publication.folders)]
        archives = [download.name for download in publication.downloads]
        self._archives = [
            place / name
            for place in self._places
            for name in archives
            if name.endswith(".tar.gz") and (place / name).is_file()
        ]
        missing = [name for name in publication.files if not self._find(name)]
        if missing and not self._archives:
            raise DataError(
                f"{root}: expected the publishers' files of {publication.name}; missing"
                f" {', '.join(missing)}. They may lie there, in a folder"
                f" {' or '.join(publication.folders)}, or packed as {', '.join(archives)}"
            )

    def read(self, name: str) -> bytes:
        """Return the content of one file, unpacked.

        Raises:
            DataError: It cannot be read or unpacked.
        """
        file = self._find(name)
        try:
            if file is None:
                return _read_member(self._archives[0], name)
            return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise DataError(
                f"{file or self._archives[0]}: cannot be read ({error}): fetch it again"
            ) from error

    def _find(self, name: str) -> Path | None:
        candidates = (place / form for place in self._places for form in (name, f"{name}.gz"))
        return next((file for file in candidates if file.is_file()), None)


def _read_member(archive: Path, name: str) -> bytes:
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if Path(member.name).name == name:
                file = tar.extractfile(member)
                if file is not None:
                    return file.read()
    raise DataError(f"{archive}: expected a file {name} in it; there is none: fetch it again")
