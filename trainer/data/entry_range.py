"""Which entries of a database a worker reads."""

from __future__ import annotations

from pathlib import Path

from trainer.errors import DataError


def entry_range(path: Path, count: int, rank: int, world_size: int) -> tuple[int, int]:
    """Return the first entry of a worker's part, and the one after its last.

    Args:
        path: Of the database or list, for messages.
        count: Entries in it.
        rank: Which of the `world_size` parts.
        world_size: Number of parts.

    Raises:
        DataError: There are fewer entries than parts.
    """
    if not count:
        raise DataError(f"{path}: the database is empty; convert the images again")
    if count < world_size:
        raise DataError(
            f"{path}: expected at least one entry for each of {world_size} workers;"
            f" it holds {count}: use fewer workers or more data"
        )
    return count * rank // world_size, count * (rank + 1) // world_size
