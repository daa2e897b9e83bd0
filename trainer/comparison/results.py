"""Results of a comparison: a row for each run, from its metrics file; the files that keep them."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prototxt_parser.atomic import atomic_write
from trainer.comparison.outcomes import Row
from trainer.errors import DataError
from trainer.plotting.records import RunRecords

_MOST_POINTS = 200  # of a curve of losses
_SUMS = ("compute_s", "exchange_s", "sent_bytes", "received_bytes")
_COLUMNS = (
    *("run", "strategy", "workers", "seed", "status", "metric", "final", "iterations", "samples"),
    *("seconds", "start_s", "images_per_s", "other_load"),
)
_EXCHANGE_COLUMNS = ("count", *_SUMS, "staleness_mean", "staleness_max")


def measurements(records: RunRecords) -> dict[str, Any]:
    """Return what a row says of how a run went.

    Seconds count from where training began; before that come, with workers, the start of Spark and
    the first test.

    Raises:
        DataError: The run has not been tested or did not come to its end.
    """
    times = {record["event"]: record["seconds"] for record in reversed(records.event)}
    own = [test for test in records.test if test.get("net", 0) == 0]
    start, metric = records.start, "accuracy" if own and "accuracy" in own[-1] else "loss"
    if start is None or not own or not {"begin", "end"} <= times.keys():
        raise DataError(f"{records.path}: expected a run with tests that came to its end")
    final = own[-1].get(metric)
    is_finite = final is not None and own[-1].get("loss", 0.0) is not None
    together = start["workers"] if start["per_worker"] else 1  # that count as one iteration
    return {
        "batch": start["batch"] // together,
        "samples": start["max_iter"] * start["batch"],
        "status": "finished" if is_finite else "diverged",
        "metric": metric,
        "final": final,
        "tests": [_point(test, times["begin"]) for test in own],
        "train": [_point(each, times["begin"]) for each in _losses(records)],
        "seconds": round(times["end"] - times["begin"], 3),
        "start_s": times["begin"],
        "exchanges": _exchanges(records.exchange),
        "versions": start["versions"],
        "started": start["started"],
    }


def _point(record: Row, begin: float) -> dict[str, Any]:
    point = {name: value for name, value in record.items() if name not in ("kind", "net")}
    return {**point, "seconds": round(max(0.0, record["seconds"] - begin), 3)}


def _losses(records: RunRecords) -> list[Row]:
    """Return some of the training losses; workers tell them with their exchanges."""
    names = ("iteration", "samples", "seconds", "loss")
    losses: list[Row] = [
        {name: record[name] for name in names}
        for record in (records.train or records.exchange)
        if record["loss"] is not None
    ]
    step = -(-len(losses) // _MOST_POINTS)
    return losses[::step] if losses else []


def _exchanges(records: Sequence[Row]) -> dict[str, Any] | None:
    if not records:
        return None
    staleness = Counter(record["staleness"] for record in records)
    return {
        "count": len(records),
        **{name: round(sum(record[name] for record in records), 3) for name in _SUMS},
        "staleness_mean": sum(stale * count for stale, count in staleness.items()) / len(records),
        "staleness_max": max(staleness),
        "staleness": {str(stale): staleness[stale] for stale in sorted(staleness)},
    }


def read_rows(path: Path) -> list[Row]:
    """Read rows, one a line.

    Raises:
        DataError: The file cannot be read, or is no such file.
    """
    rows: list[Row]
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: expected a comparison's results, a JSON object a line") from error
    if not all(isinstance(row, dict) and "run" in row for row in rows):
        raise DataError(f"{path}: expected a comparison's results; found lines without `run`")
    return rows


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write rows, one a line."""
    with atomic_write(path) as file:
        file.writelines(json.dumps(row).encode() + b"\n" for row in rows)


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write what a spreadsheet takes: a line for each run, without curves."""
    options = list(dict.fromkeys(name for row in rows for name in row["options"]))
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*_COLUMNS[:3], *options, *_COLUMNS[3:], *_EXCHANGE_COLUMNS])
    for row in rows:
        exchanges = row.get("exchanges") or {}
        writer.writerow(
            [
                *(row[name] for name in _COLUMNS[:3]),
                *(row["options"].get(name) for name in options),
                *(_cell(row, name) for name in _COLUMNS[3:]),
                *(exchanges.get(name) for name in _EXCHANGE_COLUMNS),
            ]
        )
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def _cell(row: Row, name: str) -> Any:
    if name == "images_per_s":
        return round(row["samples"] / row["seconds"], 1) if row.get("seconds") else None
    return row.get(name)
