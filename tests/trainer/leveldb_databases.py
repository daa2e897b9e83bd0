"""What is in a database, entry after entry; and databases to spoil."""

import shutil
from pathlib import Path

from golden_cases import GOLDEN
from trainer.data.database import open_database

GOLDEN_DATABASES = GOLDEN / "formats" / "db"


def entries(path: Path, backend: str = "leveldb") -> list[tuple[bytes, bytes]]:
    """Return all entries in the order in which they are read."""
    reader = open_database(path, backend)
    found = []
    for _ in range(reader.count):
        found.append((reader.key, reader.value))
        reader.advance()
    reader.close()
    return found


def copy_of(name: str, folder: Path) -> Path:
    """Copy a recorded database."""
    target = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(GOLDEN_DATABASES / name, target, copy_function=shutil.copyfile)
    return target
