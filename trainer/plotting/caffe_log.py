"""Records out of a training log, Caffe's or ours."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from trainer.parse_log import LogLine

_TESTING = re.compile(r"Iteration (\d+), Testing net \(#(\d+)\)")
_LOSS = re.compile(r"Iteration (\d+).*, loss = (\S+)")
_RATE = re.compile(r"Iteration (\d+), lr = (\S+)")
_OUTPUT = re.compile(r"    (Train|Test) net output #\d+: (\S+) = (\S+)")


def log_records(lines: Iterable[LogLine]) -> Iterator[dict[str, Any]]:
    """Yield the records of kind `train` and `test` that a log's lines tell of, without samples.

    Unlike the tables of Caffe's own tool, test nets are kept apart, a rate belongs to the iteration
    that it is logged with, the loss is the smoothed one, and a last test counts.
    """
    record: dict[str, Any] | None = None
    for text, seconds in ((line.text, line.seconds) for line in lines):
        if seconds is None:
            continue
        begun = _begun(text)
        if begun is not None:
            if record is not None:
                yield record
            record = {**begun, "seconds": seconds}
        elif record is not None:
            _fill(record, text, seconds)
    if record is not None:
        yield record


def _begun(text: str) -> dict[str, Any] | None:
    """Return the record that a line begins."""
    if match := _TESTING.search(text):
        return {"kind": "test", "iteration": int(match[1]), "net": int(match[2])}
    if match := _LOSS.search(text):
        return {"kind": "train", "iteration": int(match[1]), "loss": _number(match[2])}
    return None


def _fill(record: dict[str, Any], text: str, seconds: float) -> None:
    """Put what a line tells into the record that it belongs to."""
    match = _OUTPUT.search(text)
    if match and match[1].lower() == record["kind"]:
        if record["kind"] == "test":
            record |= {"seconds": seconds, match[2]: _number(match[3])}
        elif match[2] != "loss":
            record[match[2]] = _number(match[3])
    elif (match := _RATE.search(text)) and int(match[1]) == record["iteration"]:
        record["lr"] = _number(match[2])


def _number(text: str) -> float | None:
    """Return a number; None for `nan`, infinities and what is none, as in metrics files."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
