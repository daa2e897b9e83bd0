"""What a run has recorded, by kind: read from its metrics file or from a Caffe log."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from trainer.errors import DataError
from trainer.parse_log import read_log
from trainer.plotting.caffe_log import log_records
from trainer.plotting.names import METRICS_ENDING, distinct_names

Record = dict[str, Any]

KINDS = ("train", "test", "exchange", "event")

_JITTER_S = 0.1  # by which records of one process may lie behind each other
_LISTED = 8  # of what a folder holds, when that is reported


@dataclass
class RunRecords:
    """What a run has recorded, in the order of its iterations.

    Every record has kind, iteration, seconds and, unless it comes from a Caffe log, samples.

    Attributes:
        path: The file.
        name: For people.
        start: What the run said of itself when it was started last; None in logs and older files.
        train, test, exchange, event: The other records, as `trainer.metrics` describes them.
    """

    path: Path
    name: str
    start: Record | None = None
    train: list[Record] = field(default_factory=list)
    test: list[Record] = field(default_factory=list)
    exchange: list[Record] = field(default_factory=list)
    event: list[Record] = field(default_factory=list)


def read_runs(paths: Sequence[Path]) -> list[RunRecords]:
    """Return runs under names that tell them apart; one that is named twice comes once.

    Raises:
        DataError: As of `read_run`.
    """
    runs: dict[Path, tuple[Path, RunRecords]] = {}
    for path in paths:
        run = read_run(path)
        runs.setdefault(run.path.resolve(), (path, run))
    names = distinct_names([path for path, _ in runs.values()])
    for name, (_, run) in zip(names, runs.values(), strict=True):
        run.name = printable(name)
    return [run for _, run in runs.values()]


def read_run(path: Path) -> RunRecords:
    """Return what a run has recorded.

    A run that was resumed goes on in the same file: its seconds add up, those of work that was lost
    included, and what was done again replaces what was recorded before.

    Args:
        path: The run's folder, its metrics file, or a log of Caffe's or ours.

    Raises:
        DataError: There is no such file, the folder does not hold exactly one, or it is neither a
            metrics file nor a log.
    """
    file = file_of_run(path)
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{file}: cannot read the run: {error.strerror}") from error
    if not text.strip():
        raise DataError(f"{file}: expected a metrics file or a training log; the file is empty")
    collector = RecordCollector()
    if text.lstrip().startswith("{"):
        _collect_lines(collector, file, text)
    elif "Solving" in text:
        for record in log_records(read_log(file)):
            collector.put(record)
    else:
        raise DataError(
            f"{file}: expected a metrics file (JSON lines that `train` writes as "
            f"PREFIX{METRICS_ENDING}) or the log of a training run, with a line `Solving NET`; "
            "found neither"
        )
    return collector.run(file, printable(distinct_names([path])[0]))


def parse_line(line: str) -> Record | None:
    """Return the record in a line of a metrics file; None if there is no whole one.

    A run that was killed while it wrote and then resumed goes on in the line that was cut off; such
    a line is what it was resumed with.
    """
    for text in (line, line[max(line.rfind('{"kind"'), 0) :]):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            continue
        return record if _is_record(record) else None
    return None


def number(value: Any) -> float | None:
    """Return a recorded value as a float; None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def member_of(record: Record) -> int:
    """Return which worker a record of an exchange is of, or which test net one of a test."""
    return int(number(record.get("rank" if record["kind"] == "exchange" else "net")) or 0)


def printable(text: str) -> str:
    """Return a text with a mark for every character that a picture cannot show."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


@final
class RecordCollector:
    """Puts the records of a run together, as they come."""

    def __init__(self) -> None:
        self._start: Record | None = None
        self._series: dict[tuple[str, int], list[tuple[int, Record]]] = {}
        self._count = 0
        self._earlier_s = self._last_s = 0.0  # of earlier processes; of this one
        self._is_resumed = False

    def add(self, record: Record) -> None:
        """Take in a record of a metrics file; one of a kind that is not known is passed over."""
        kind, seconds = record["kind"], record["seconds"]
        if kind == "start" or seconds < self._last_s - _JITTER_S:
            self._earlier_s += self._last_s
            self._is_resumed = True
        self._last_s = seconds
        record = {**record, "seconds": round(self._earlier_s + seconds, 3)}
        if kind == "start":
            self._start = record
        elif kind in KINDS:
            if self._is_resumed:
                self._forget(kind, record["iteration"])
                self._is_resumed = False
            self.put(record)

    def put(self, record: Record) -> None:
        """Take in a record whose seconds count from the start of the run."""
        kind, place = record["kind"], _place(record)
        series = self._series.setdefault((kind, member_of(record)), [])
        if kind != "event" and series and _is_repeated(kind, place, _place(series[-1][1])):
            while series and _place(series[-1][1]) >= place:
                series.pop()
        series.append((self._count, record))
        self._count += 1

    def run(self, path: Path, name: str) -> RunRecords:
        """Return what was collected so far."""
        lists: dict[str, list[tuple[int, Record]]] = {kind: [] for kind in KINDS}
        for (kind, _), series in self._series.items():
            lists[kind] += series
        ordered = {
            kind: [record for _, record in sorted(numbered, key=lambda pair: pair[0])]
            for kind, numbered in lists.items()
        }
        return RunRecords(path, name, self._start, **ordered)

    def _forget(self, kind: str, iteration: float) -> None:
        """Forget what a process does again whose first record is of this kind and iteration."""
        for (each, _), series in self._series.items():
            if each != "event":
                series[:] = [
                    (count, record)
                    for count, record in series
                    if record["iteration"] < iteration
                    or (record["iteration"] == iteration and each != kind)
                ]


def _place(record: Record) -> float:
    return number(record.get("worker_iteration")) or float(record["iteration"])


def _is_repeated(kind: str, place: float, last: float) -> bool:
    # A worker that has nothing left to do takes part in exchanges at its last iteration.
    return place < last or (place == last and kind != "exchange")


def _is_record(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("kind"), str)
        and number(value.get("iteration")) is not None
        and number(value.get("seconds")) is not None
        and number(value.get("samples", 0)) is not None
    )


def _collect_lines(collector: RecordCollector, file: Path, text: str) -> None:
    lines = [(count, line) for count, line in enumerate(text.splitlines(), 1) if line.strip()]
    is_empty = True
    for count, line in lines:
        record = parse_line(line)
        if record is not None:
            collector.add(record)
            is_empty = False
        elif count != lines[-1][0]:
            raise DataError(
                f'{file}:{count}: expected a record, {{"kind": …, "iteration": …, '
                f'"seconds": …}}; received {line[:60]!r}'
            )
    if is_empty:
        raise DataError(f"{file}: expected a metrics file; it holds no whole record")


def file_of_run(path: Path) -> Path:
    """Return the metrics file in a folder; any other path as it is.

    Raises:
        DataError: The folder does not hold exactly one.
    """
    if not path.is_dir():
        return path
    try:
        names = sorted(each.name for each in path.iterdir())
    except OSError as error:
        raise DataError(f"{path}: cannot read the folder: {error.strerror}") from error
    found = [name for name in names if name.endswith(METRICS_ENDING)]
    if len(found) == 1:
        return path / found[0]
    remedy = "name one of them" if found else "name the run's folder, a metrics file or a log"
    raise DataError(
        f"{path}: expected exactly one file *{METRICS_ENDING} in this folder; found "
        f"{_listed(found) if found else f'none among {_listed(names)}'}; {remedy}"
    )


def _listed(names: Sequence[str]) -> str:
    if len(names) <= _LISTED:
        return ", ".join(names) or "no files"
    return f"{', '.join(names[:_LISTED])} and {len(names) - _LISTED} more"
