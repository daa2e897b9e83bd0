"""The files of a prepared data set, as Caffe's example scripts name them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prototxt_parser.atomic import atomic_write
from trainer.data.database import write_database
from trainer.data.entries import Entry
from trainer.data.mean_file import compute_mean, write_mean
from trainer.errors import UsageError

MEAN_FILE = "mean.binaryproto"
_ORIGINS_FILE = "torrefy_data.json"

Split = Callable[[], Iterable[Entry]]


@dataclass(frozen=True)
class Layout:
    """A train and a test database, and perhaps the mean image of the first.

    A file beside them records what each was made of, so that one set is never taken for another
    that has the same file names.

    Attributes:
        name: What the names of the databases begin with.
        has_mean: Whether there is a mean file.
        backend: Kind of the databases.
    """

    name: str
    has_mean: bool
    backend: str = "lmdb"

    @property
    def train(self) -> str:
        """Name of the training database."""
        return f"{self.name}_train_{self.backend}"

    @property
    def test(self) -> str:
        """Name of the test database."""
        return f"{self.name}_test_{self.backend}"

    @property
    def files(self) -> tuple[str, ...]:
        """Names of everything that is made, in that order."""
        return (self.train, self.test, MEAN_FILE) if self.has_mean else (self.train, self.test)

    def is_complete(self, out: Path) -> bool:
        """Whether everything is in folder `out`."""
        return all((out / name).exists() for name in self.files)

    def origin(self, out: Path) -> str | None:
        """Return what the set in folder `out` was made of, if that is recorded there."""
        return _read_origins(out).get(self.train)

    def check(self, out: Path, origin: str) -> None:
        """Make sure that nothing in folder `out` stands in the way of a set made of `origin`.

        Raises:
            UsageError: Something made of anything else does.
        """
        origins = _read_origins(out)
        unrecorded = self.name if self.is_complete(out) else "an unfinished set of other make"
        for name in self.files:
            found = origins.get(name, unrecorded if (out / name).exists() else origin)
            if found != origin:
                raise UsageError(
                    f"{out / name} belongs to {found}, not to {origin}:"
                    " remove it or choose another folder"
                )

    def write(self, out: Path, origin: str, train: Split, test: Split) -> list[Path]:
        """Write into folder `out` what is not there yet.

        Args:
            out: Made if it does not exist.
            origin: What the set is made of.
            train: Gives the entries of the training database.
            test: Gives those of the test database.

        Returns:
            What was written.

        Raises:
            UsageError: Something made of anything else stands in the way.
            DataError: The source is damaged, or a database cannot be written.
            WriteError: The mean file or the record cannot be written.
        """
        self.check(out, origin)
        missing = [name for name in self.files if not (out / name).exists()]
        if missing:
            _make_folder(out)
            _record_origins(out, dict.fromkeys(self.files, origin))
        splits = {self.train: train, self.test: test}
        for name in missing:
            if name == MEAN_FILE:
                write_mean(out / name, compute_mean(out / self.train, self.backend))
            else:
                write_database(out / name, splits[name](), self.backend)
        return [out / name for name in missing]

    def add(self, out: Path, name: str, entries: Split) -> list[Path]:
        """Write one more database, made of the complete set in folder `out`, unless it is there.

        Args:
            out: The folder.
            name: Of the database.
            entries: Gives its entries.

        Returns:
            What was written.

        Raises:
            UsageError: A database of that name was made of anything else.
            DataError: It cannot be written.
        """
        origins = _read_origins(out)
        if (out / name).exists():
            if origins.get(name) != origins.get(self.train):
                raise UsageError(
                    f"{out / name} belongs to {origins.get(name, 'a set of other make')}, not to"
                    f" {origins.get(self.train)}: remove it or choose another folder"
                )
            return []
        _record_origins(out, {name: origins[self.train]})
        write_database(out / name, entries(), self.backend)
        return [out / name]


def _read_origins(out: Path) -> dict[str, str]:
    """Return what each file was made of, without sets of which nothing is left."""
    record = out / _ORIGINS_FILE
    try:
        origins: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
        present = {origin for name, origin in origins.items() if (out / name).exists()}
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{record}: cannot be read ({error}): remove it, and the data beside it"
        ) from error
    return {name: origin for name, origin in origins.items() if origin in present}


def _record_origins(out: Path, origins: Mapping[str, str]) -> None:
    text = json.dumps({**_read_origins(out), **origins}, indent=1) + "\n"
    with atomic_write(out / _ORIGINS_FILE) as file:
        file.write(text.encode())


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: cannot be made ({error}); choose another folder") from error
