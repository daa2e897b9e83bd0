"""Curves out of what runs have recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UsageError
from trainer.plotting.records import Record, RunRecords, member_of, number

Values: TypeAlias = NDArray[np.float64]

X_AXES = {"iterations": "iteration", "samples": "samples", "seconds": "seconds"}
DEFAULT_NAMES = ("accuracy", "loss")

_PLACES = {
    *("kind", "iteration", "samples", "seconds", "net"),
    *("rank", "worker_iteration"),
}
_MEASURES = {
    "lr": "learning rate",
    "center_loss": "loss of the centre",
    "staleness": "staleness (updates)",
    "compute_s": "compute per exchange (s)",
    "exchange_s": "exchange (s)",
    "sent_bytes": "sent per exchange (MB)",
    "received_bytes": "received per exchange (MB)",
}
_UNITS = {"sent_bytes": 1e6, "received_bytes": 1e6}
_MIN_NOISY, _NOISE = 20, 3.0  # fewer points are not smoothed; ups and downs over what is covered
_WINDOWS = 25  # running means that follow each other on a curve


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve.

    Attributes:
        label: For the legend; curves of one label share an entry.
        style: Number of its colour and line style.
        x, y: Shape (N,); NaN in y leaves a gap.
        low, high: Shape (N,): the borders of what is shaded around it, such as the spread over
            seeds or workers.
        raw: Shape (N,): what is drawn faintly behind it, for one that is smoothed.
        is_smoothed: Whether y, low and high are running means.
    """

    label: str
    style: int
    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None
    raw: Values | None = None
    is_smoothed: bool = False


@dataclass(frozen=True, eq=False)
class Panel:
    """Curves that share their axes.

    Attributes:
        x_label, y_label: With units.
        curves: What is drawn.
        note: What lines and shades are.
        is_log: Whether y is logarithmic.
    """

    x_label: str
    y_label: str
    curves: Sequence[Curve]
    note: str = ""
    is_log: bool = False


@dataclass(frozen=True)
class _Series:
    """Records of a run that make a curve."""

    label: str
    records: Sequence[Record]
    workers: int = 1


def recorded_names(runs: Sequence[RunRecords]) -> list[str]:
    """Return the names under which any of the runs has recorded a number."""
    records = (record for run in runs for record in (*run.test, *run.train, *run.exchange))
    names = (name for record in records for name in record if number(record[name]) is not None)
    return [name for name in dict.fromkeys(names) if name not in _PLACES]


def make_panels(
    runs: Sequence[RunRecords], names: Sequence[str], x_axis: str = "iterations"
) -> list[Panel]:
    """Return a panel for each name; for one that was recorded in tests and in training, two.

    Training is what `train` records say; in a run of workers, which has none, the mean over workers
    between the least and the greatest. What is noisy in training is smoothed, tests are not.

    Args:
        runs: What is compared, under distinct names.
        names: What is drawn: `accuracy`, `loss`, `lr`, `staleness`, … of `recorded_names`.
        x_axis: One of `X_AXES`.

    Raises:
        UsageError: A name is recorded in none of the runs, or samples in not all of them.
    """
    known = recorded_names(runs)
    for name in names:
        if name not in known:
            raise UsageError(
                f"{name!r} is recorded in none of the runs; recorded are: "
                f"{', '.join(known) or 'no numbers'}"
            )
    if x_axis == "samples":
        _check_samples(runs)
    scale, x_label = _x_scale(runs, x_axis)
    parts = [
        (name, is_test, [each for run in runs for each in series_of(run, name)])
        for name in names
        for is_test, series_of in ((True, _test_series), (False, _training_series))
    ]
    labels = list(dict.fromkeys([run.name for run in runs]))
    labels += [each.label for _, _, series in parts for each in series if each.label not in labels]
    styles = {label: style for style, label in enumerate(dict.fromkeys(labels))}
    panels = []
    for name, is_test, series in parts:
        curves = [
            _curve(each, styles[each.label], name, X_AXES[x_axis], scale, is_smoothed=not is_test)
            for each in series
        ]
        if curves:
            is_log = name == "lr" and _spans_decades(curves)
            label = _y_label(name, is_test=is_test)
            panels.append(Panel(x_label, label, curves, _note(curves), is_log))
    return panels


def time_unit(longest_s: float) -> tuple[str, float]:
    """Return the unit in which times up to this one are read best, and its seconds."""
    if longest_s >= 3 * 3600:
        return "h", 3600.0
    return ("min", 60.0) if longest_s >= 600 else ("s", 1.0)


def running_mean(values: Values, half: int) -> Values:
    """Return the mean over each value and `half` on either side, as far as there are so many.

    A NaN stays one and counts in no mean.
    """
    is_known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(is_known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(is_known)])
    place = np.arange(len(values))
    first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(values))
    means = (sums[last] - sums[first]) / np.maximum(counts[last] - counts[first], 1)
    return np.where(is_known, means, np.nan)


def _check_samples(runs: Sequence[RunRecords]) -> None:
    for run in runs:
        if any("samples" not in each for each in (*run.test, *run.train, *run.exchange)):
            raise UsageError(
                f"{run.path}: a log does not say how many samples an iteration sees; draw over "
                "iterations or seconds, or name the run's metrics file"
            )


def _x_scale(runs: Sequence[RunRecords], x_axis: str) -> tuple[float, str]:
    """Return what a unit of the axis is in recorded ones, and the axis's label."""
    if x_axis != "seconds":
        return 1.0, x_axis
    records = (record for run in runs for record in (*run.test, *run.train, *run.exchange))
    unit, seconds = time_unit(max((record["seconds"] for record in records), default=0.0))
    return seconds, f"time ({unit})"


def _test_series(run: RunRecords, name: str) -> Iterator[_Series]:
    records = _having(run.test, name)
    for net in sorted({member_of(record) for record in records}):
        label = run.name if net == 0 else f"{run.name}, test net {net}"
        yield _Series(label, [record for record in records if member_of(record) == net])


def _training_series(run: RunRecords, name: str) -> Iterator[_Series]:
    if records := _having(run.train, name):
        yield _Series(run.name, records)
    elif records := [each for each in run.exchange if number(each.get(name)) is not None]:
        yield _Series(run.name, records, len({member_of(record) for record in records}))


def _having(records: Sequence[Record], name: str) -> list[Record]:
    """Return the records with this name, null or not, if any of them has a number there."""
    if not any(number(record.get(name)) is not None for record in records):
        return []
    return [record for record in records if name in record]


def _curve(
    series: _Series, style: int, name: str, key: str, scale: float, *, is_smoothed: bool
) -> Curve:
    records = sorted(series.records, key=lambda record: float(record[key]))
    x = np.array([record[key] for record in records], dtype=np.float64) / scale
    values = [number(record[name]) for record in records]
    y = np.array([np.nan if value is None else value for value in values]) / _UNITS.get(name, 1.0)
    low = high = raw = None
    if series.workers > 1:
        x, y, low, high = _over_workers(x, y, series.workers)
    is_smoothed = is_smoothed and name != "lr" and _is_noisy(y)
    if is_smoothed:
        half = max(2, len(y) // _WINDOWS // 2)
        if low is None or high is None:
            raw = y
        else:
            low, high = running_mean(low, half), running_mean(high, half)
        y = running_mean(y, half)
    return Curve(series.label, style, x, y, low, high, raw, is_smoothed)


def _over_workers(x: Values, y: Values, workers: int) -> tuple[Values, Values, Values, Values]:
    """Return mean x and mean, least and greatest y of as many neighbours as there are workers."""
    starts = np.arange(0, len(x), workers)
    counts = np.diff([*starts, len(x)])

    def folded(fold: Callable[[Values, NDArray[np.int64]], Values], values: Values) -> Values:
        return fold(values, starts)

    return (
        folded(np.add.reduceat, x) / counts,
        folded(np.add.reduceat, y) / counts,
        folded(np.minimum.reduceat, y),
        folded(np.maximum.reduceat, y),
    )


def _is_noisy(y: Values) -> bool:
    known = y[np.isfinite(y)]
    if len(known) < _MIN_NOISY:
        return False
    return bool(np.abs(np.diff(known)).sum() > _NOISE * np.ptp(known))


def _spans_decades(curves: Sequence[Curve]) -> bool:
    values = np.concatenate([curve.y for curve in curves])
    return bool(np.nanmin(values) > 0 and np.nanmax(values) >= 50 * np.nanmin(values))


def _note(curves: Sequence[Curve]) -> str:
    parts = []
    if any(curve.is_smoothed for curve in curves):
        parts.append("running means")
    if any(curve.raw is not None for curve in curves):
        parts.append("faint: as recorded")
    if any(_is_shaded(curve) for curve in curves):
        parts.append("shaded: from the least to the greatest worker")
    return "; ".join(parts)


def _is_shaded(curve: Curve) -> bool:
    if curve.low is None or curve.high is None:
        return False
    return bool((curve.low < curve.high).any())


def _y_label(name: str, *, is_test: bool) -> str:
    if is_test:
        return f"test {name}"
    return _MEASURES.get(name, f"train {name}")
