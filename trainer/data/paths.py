"""Finding the files that a prototxt names when they are kept elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

from trainer.errors import DataError

# What stands in a file's name, and the set of `torrefy data` that has it.
_MAKEABLE_SETS = {
    "cifar100": "cifar100",
    "cifar10": "cifar10",
    "mnist_siamese": "siamese",
    "mnist": "mnist",
}
_RANK = "{rank}"
_BORDER = re.compile(r"_train_pad(\d+)_")


def find_data(name: str, data_dir: Path | None) -> Path:
    """Return the path `name` if it exists, else the same file or folder inside `data_dir`.

    Args:
        name: As a prototxt gives it, relative to the working directory.
        data_dir: Folder to look in for the last part of `name`; of worker 0, if each has its own.

    Raises:
        DataError: It is at neither place.
    """
    candidates = [Path(name)]
    folder = shard_folder(data_dir, 0)
    if folder is not None:
        candidates.append(folder / Path(name).name)
    for candidate in candidates:
        if _exists(candidate):
            return candidate
    looked = " and ".join(str(candidate.absolute()) for candidate in candidates)
    raise DataError(f"{name} does not exist; looked at {looked}. {_remedy(name)}")


def is_sharded(data_dir: Path | None) -> bool:
    """Return whether each of several workers has a folder of its own."""
    return data_dir is not None and _RANK in str(data_dir)


def shard_folder(data_dir: Path | None, rank: int) -> Path | None:
    """Return `data_dir` as it is for worker `rank`."""
    return None if data_dir is None else Path(str(data_dir).replace(_RANK, str(rank)))


def find_shard(name: str, folder: Path) -> Path:
    """Return the file or folder inside a worker's own `folder` under the last part of `name`.

    Raises:
        DataError: There is none.
    """
    shard = folder / Path(name).name
    if not _exists(shard):
        raise DataError(
            f"{name}: this worker expects its shard at {shard.absolute()}, which does not exist:"
            f" put it there on the worker's machine, use fewer workers, or take {_RANK} out of"
            " --data to have all workers share what is there"
        )
    return shard


def find_listed(root: str, name: str, data_dir: Path | None) -> Path:
    """Return the path `root` + `name` if it exists or is nowhere else, else one inside `data_dir`.

    Args:
        root: What the prototxt puts before every name of a list, with its slash.
        name: As the list gives it.
        data_dir: Folder to look in for `name`, for it within the last folder of `root`, and for
            its last part.
    """
    named = Path(root + name)
    if data_dir is not None and not _exists(named):
        folder, relative = data_dir, name.lstrip("/")
        for inside in (folder / Path(root).name / relative, folder / relative, folder / named.name):
            if _exists(inside):
                return inside
    return named


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, say; reading it will tell
        return False


def _remedy(name: str) -> str:
    for known, made in _MAKEABLE_SETS.items():
        if known in name:
            border = _BORDER.search(name)
            pad = f" --pad {border[1]}" if border else ""
            return f"Make it with `torrefy data {made}{pad} --out DIR` and add --data DIR"
    return "Correct the path, or name the folder that holds it with --data"
