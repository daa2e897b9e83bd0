"""Which files a LevelDB consists of: the files CURRENT and MANIFEST.

Source: google/leveldb doc/impl.md; db/version_edit.cc, db/version_set.cc, VersionSet::Recover.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.data.leveldb_coding import (
    damage_of,
    read_bytes,
    read_varint,
    write_bytes,
    write_varint,
)
from trainer.data.leveldb_log import format_record, read_records

COMPARATOR = b"leveldb.BytewiseComparator"

_COMPARATOR, _LOG, _NEXT_FILE, _LAST_SEQUENCE, _COMPACT_POINTER = 1, 2, 3, 4, 5
_DELETED_FILE, _NEW_FILE, _PREVIOUS_LOG = 6, 7, 9


@dataclass(frozen=True)
class TableFile:
    """One table of a database.

    Attributes:
        number: Names the file.
        size: In bytes.
        smallest: First key, with its sequence number and kind.
        largest: Last one.
    """

    number: int
    size: int
    smallest: bytes
    largest: bytes


@dataclass
class Version:
    """The files that hold the entries of a database.

    Attributes:
        tables: By level and number. Tables of one level do not overlap, except in level 0.
        log: Number of the first write-ahead log that counts; -1 until it is known.
        previous_log: Number of another one, 0 for none.
    """

    tables: dict[tuple[int, int], TableFile] = field(default_factory=dict)
    log: int = -1
    previous_log: int = 0


def read_version(folder: Path) -> Version:
    """Return the files of the database in `folder`.

    Raises:
        DataError: There is none, or its list of files is damaged.
    """
    current = folder / "CURRENT"
    with damage_of(current):
        name = current.read_text("ascii")
        if not name.startswith("MANIFEST-") or not name.endswith("\n") or "/" in name:
            raise ValueError("it names no MANIFEST")
    manifest = folder / name[:-1]
    version = Version()
    with damage_of(manifest):
        for record in read_records(manifest):
            _apply(version, record.payload)
        if version.log < 0:
            raise ValueError("it does not say which log counts")
    return version


def _apply(version: Version, edit: bytes) -> None:
    position = 0
    while position < len(edit):
        tag, position = read_varint(edit, position)
        if tag == _COMPARATOR:
            comparator, position = read_bytes(edit, position)
            if comparator != COMPARATOR:
                raise ValueError(f"its order of keys is {comparator!r}, not {COMPARATOR!r}")
        elif tag == _LOG:
            version.log, position = read_varint(edit, position)
        elif tag == _PREVIOUS_LOG:
            version.previous_log, position = read_varint(edit, position)
        elif tag in (_NEXT_FILE, _LAST_SEQUENCE):
            _, position = read_varint(edit, position)
        elif tag == _COMPACT_POINTER:
            _, position = read_varint(edit, position)
            _, position = read_bytes(edit, position)
        elif tag in (_DELETED_FILE, _NEW_FILE):
            level, position = read_varint(edit, position)
            number, position = read_varint(edit, position)
            if tag == _DELETED_FILE:
                version.tables.pop((level, number), None)
                continue
            size, position = read_varint(edit, position)
            smallest, position = read_bytes(edit, position)
            largest, position = read_bytes(edit, position)
            version.tables[level, number] = TableFile(number, size, smallest, largest)
        else:
            raise ValueError(f"an entry of the unknown kind {tag}")


def write_version(
    folder: Path, level: int, tables: Sequence[TableFile], last_sequence: int
) -> None:
    """Make the database in `folder` consist of `tables`, all of one level, and no log.

    Raises:
        OSError: The file system refuses.
    """
    manifest_number = max((table.number for table in tables), default=0) + 1
    numbers = {
        _LOG: manifest_number + 1,
        _PREVIOUS_LOG: 0,
        _NEXT_FILE: manifest_number + 2,
        _LAST_SEQUENCE: last_sequence,
    }
    edit = write_varint(_COMPARATOR) + write_bytes(COMPARATOR)
    edit += b"".join(map(write_varint, _flat(numbers.items())))
    edit += b"".join(
        b"".join(map(write_varint, (_NEW_FILE, level, table.number, table.size)))
        + write_bytes(table.smallest)
        + write_bytes(table.largest)
        for table in tables
    )
    name = f"MANIFEST-{manifest_number:06d}"
    (folder / name).write_bytes(format_record(edit))
    (folder / "CURRENT").write_text(f"{name}\n", "ascii")


def _flat(pairs: Iterable[tuple[int, int]]) -> Iterable[int]:
    return (number for pair in pairs for number in pair)
