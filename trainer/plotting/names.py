"""What runs are called in a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

METRICS_ENDING = "_metrics.jsonl"

_ENDINGS = (METRICS_ENDING, ".jsonl", ".log", ".txt")


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest part of each path that tells it from the others.

    What all paths begin with, and what all end with, is left out: `a` and `b` for `runs/a/1` and
    `runs/b/1`.
    """
    parts = [Path(os.path.abspath(path)).parts for path in paths]  # noqa: PTH100 (`..` is resolved)
    plain = [(*each[:-1], _without_ending(each[-1])) for each in parts]
    if len(set(plain)) == len(plain):
        parts = plain
    parts = _without_common_start(parts)
    if len(parts) > 1:
        parts = [each[::-1] for each in _without_common_start([each[::-1] for each in parts])]
    return ["/".join(each) for each in parts]


def _without_ending(name: str) -> str:
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), "")
    return name.removesuffix(ending) or name


def _without_common_start(parts: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Leave out what all begin with; of each, something stays."""
    shortest = min(map(len, parts))
    count = 0
    while count < shortest - 1 and len({each[count] for each in parts}) == 1:
        count += 1
    return [each[count:] for each in parts]
