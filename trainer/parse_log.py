"""Tables out of training logs: Caffe's own, and ours.

Source: caffe/tools/extra/parse_log.py, parse_log.sh, extract_seconds.py (what they read and write).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from pathlib import Path

from trainer.errors import DataError

Row = dict[str, float]

_STAMP = re.compile(
    r"[IWEF](?P<year>\d{4})?(?P<month>\d\d)(?P<day>\d\d) "
    r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)\.(?P<microsecond>\d+) "
)
_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?!\S)"
_ITERATION = re.compile(r"Iteration (\d+)")
_RATE = re.compile(r"lr = " + _NUMBER)
_OUTPUTS = {
    kind: re.compile(rf"{kind} net output #\d+: (\S+) = " + _NUMBER) for kind in ("Train", "Test")
}

_LOSS = re.compile(r"Iteration (\d+).*, loss = (\S+)")
_LOGGED_RATE = re.compile(r", lr = (\S+)")
_TESTING = re.compile(r"Iteration (\d+), Testing net")
_SCORES = tuple(re.compile(rf"Test net output #{number}: \S+ = (\S+)") for number in (0, 1))


@dataclass(frozen=True)
class LogLine:
    """A line of a log.

    Attributes:
        text: The line.
        seconds: Since the line that says `Solving`; None for a line without glog's stamp.
    """

    text: str
    seconds: float | None


def read_log(path: Path) -> list[LogLine]:
    """Return the lines of a log that follow the first one with `Solving`.

    Stamps need no year: it is that of the file's last change of status, and one more after each
    step back in the months. Differs from Caffe's tools: stamps with a year are read too.

    Raises:
        DataError: The file cannot be read, or has no stamped line with `Solving`.
    """
    try:
        year = datetime.fromtimestamp(path.stat().st_ctime).year
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot read the log: {error.strerror}") from error
    start = next((i for i, line in enumerate(lines) if "Solving" in line), len(lines))
    origin = _time(lines[start], year) if start < len(lines) else None
    if origin is None:
        raise DataError(
            f"{path}: expected the log of a training run, with a stamped line `Solving NET`, from "
            "which its seconds count; found none"
        )
    return list(_stamped(lines[start + 1 :], origin))


def _stamped(lines: Iterable[str], origin: datetime) -> Iterator[LogLine]:
    last = origin
    for line in lines:
        time = _time(line, last.year)
        if time is not None and time.month < last.month:
            time = _time(line, last.year + 1)
        if time is None:
            yield LogLine(line, None)
            continue
        last = time
        yield LogLine(line, (time - origin).total_seconds())


def _time(line: str, year: int) -> datetime | None:
    """Return when a line was written; None if it has no stamp, or one of no day of that year."""
    match = _STAMP.match(line)
    if match is None:
        return None
    parts = {name: int(value) for name, value in match.groupdict().items() if value is not None}
    try:
        return datetime(**({"year": year} | parts))  # type: ignore[arg-type]
    except ValueError:
        return None


@dataclass
class _Rows:
    """Rows as one kind of line fills them, complete once as wide as the first."""

    rows: list[Row] = field(default_factory=list)
    _open: Row | None = None

    def add(self, start: Row, name: str, value: float) -> None:
        """Put an output into the row of its iteration; `start` is what a new row begins with."""
        if self._open is None or self._open["NumIters"] != start["NumIters"]:
            if self._open is not None:
                self.rows.append(self._open)
            self._open = start
        self._open[name] = value
        if self.rows and len(self._open) == len(self.rows[0]):
            self.rows.append(self._open)
            self._open = None


def output_rows(lines: Iterable[LogLine]) -> tuple[list[Row], list[Row]]:
    """Return the rows that parse_log.py makes of a log, of the train and of the test nets.

    The rate is the last one logged before a row, so it lags by a display; the first row takes that
    of the second. Test nets of one iteration share a row until it is as wide as the first row, a
    row begun last and never completed is dropped, and values like `nan` are not read.
    """
    tables = {kind: _Rows() for kind in _OUTPUTS}
    iteration: float | None = None
    rate = math.nan
    for line in lines:
        if match := _ITERATION.search(line.text):
            iteration = float(match[1])
        if iteration is None or line.seconds is None:
            continue
        if match := _RATE.search(line.text):
            rate = float(match[1])
        for kind, pattern in _OUTPUTS.items():
            if match := pattern.search(line.text):
                start = {"NumIters": iteration, "Seconds": line.seconds, "LearningRate": rate}
                tables[kind].add(start, match[1], float(match[2]))
    train, test = (table.rows for table in tables.values())
    for rows in (train, test):
        if len(rows) > 1:
            rows[0]["LearningRate"] = rows[1]["LearningRate"]
    return train, test


def csv_text(rows: Sequence[Row], delimiter: str) -> str:
    """Return rows as parse_log.py writes them, each line ended by CR and LF.

    Differs from Caffe's: a name that the first row lacks becomes a column instead of an error.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def shell_tables(lines: Sequence[LogLine]) -> tuple[str, str]:
    """Return the two texts that parse_log.sh makes of a log, of losses and of tests.

    Columns are matched by their order in the log, so the scores are those of outputs 0 and 1 of
    every test. Differs from Caffe's: lines on the steps of `multistep`, and outputs 10 and up, do
    not shift the test table.
    """
    stamped = [(f"{line.seconds:.6f}", line.text) for line in lines if line.seconds is not None]

    def cells(pattern: re.Pattern[str]) -> list[tuple[str, ...]]:
        return [
            (seconds, *match.groups())
            for seconds, text in stamped
            if (match := pattern.search(text))
        ]

    losses, rates, tests = cells(_LOSS), cells(_LOGGED_RATE), cells(_TESTING)
    train_columns = (
        [iteration for _, iteration, _ in losses],
        [seconds for seconds, _, _ in losses],
        [loss for _, _, loss in losses],
        [rate for _, rate in rates],
    )
    test_columns = (
        [iteration for _, iteration in tests],
        [seconds for seconds, _ in tests],
        *([score for _, score in cells(pattern)] for pattern in _SCORES),
    )
    return (
        "#Iters Seconds TrainingLoss LearningRate\n" + _aligned(train_columns),
        "#Iters Seconds TestAccuracy TestLoss\n" + _aligned(test_columns),
    )


def _aligned(columns: Sequence[Sequence[str]]) -> str:
    """Return columns side by side, padded to their widest cell as `column -t` does."""
    filled = [column for column in columns if column]
    widths = [max(map(len, column)) for column in filled[:-1]] + [0]
    rows = zip_longest(*filled, fillvalue="")
    lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
    return "".join(f"{line}\n" for line in lines)
