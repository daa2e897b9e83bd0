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
_BORDER = re.compile(r"_train_pad(\d+)_")


def find_data(name: str, data_dir: Path | None) -> Path:
    """Return the path `name` if it exists, else the same file or folder inside `data_dir`.

    Args:
        name: As a prototxt gives it, relative to the working directory.
        data_dir: Folder to look in for the last part of `name`.

    Raises:
        DataError: It is at neither place.
    """
    candidates = [Path(name)]
    if data_dir is not None:
        candidates.append(data_dir / Path(name).name)
    for candidate in candidates:
        if _exists(candidate):
            return candidate
    looked = " and ".join(str(candidate.absolute()) for candidate in candidates)
    raise DataError(f"{name} does not exist; looked at {looked}. {_remedy(name)}")


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
