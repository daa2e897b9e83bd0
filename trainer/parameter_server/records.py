"""Measurements on their way to the driver: cut to what a call holds, checked where they come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.links import Record

# Characters of a text from a worker: the rest of a longer one is not sent.
LONGEST_TEXT = 20_000
# Characters of JSON in a call; a record with texts of that length, all escaped, adds some more.
_FULL = 200_000

_WHOLE, _NUMBER = (int,), (int, float)
_PROGRESS = {"iteration": _WHOLE, "batch": _WHOLE, "loss": (int, float, type(None))}
_FIELDS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "log": {"level": _WHOLE, "message": (str,)},
    "progress": _PROGRESS,
    "exchange": {
        **_PROGRESS,
        **dict.fromkeys(("lr", "compute_s", "exchange_s"), _NUMBER),
        **dict.fromkeys(("sent_bytes", "received_bytes", "staleness"), _WHOLE),
    },
}


def portions(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Yield the records in lists that a call can hold; one empty list if there are none."""
    portion: list[Record] = []
    length = 0
    for record in records:
        short = {name: _short(value) for name, value in record.items()}
        portion.append(short)
        length += len(json.dumps(short))
        if length > _FULL:
            yield portion
            portion, length = [], 0
    if portion or not records:
        yield portion


def _short(value: Any) -> Any:
    return value[:LONGEST_TEXT] if isinstance(value, str) else value


def read_records(values: Any) -> list[dict[str, Any]]:
    """Return the records in a command.

    Raises:
        TypeError, ValueError: There are none that the driver could add up; the caller is told so.
    """
    if not isinstance(values, list):
        raise TypeError(f"records: expected a list; received {type(values).__name__}")
    for record in values:
        _check(record)
    return values


def _check(record: Any) -> None:
    kind = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise ValueError(f"expected a record of {', '.join(_FIELDS)}; received {record!r:.200}")
    for name, types in _FIELDS[kind].items():
        if not _is_fit(record.get(name, ...), types):
            raise TypeError(f"{name} of a record of {kind}: received {record.get(name)!r:.200}")


def _is_fit(value: Any, types: tuple[type, ...]) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return int in types and 0 <= value < 1 << 53
    return type(value) in types
