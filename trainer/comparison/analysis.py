"""What the runs of a comparison say: curves, final values, time to a level, steadiness, costs.

Pure functions of result rows, without pictures. Figures are means over the seeds that finished, with
their lowest and highest; times leave out the runs that other processes disturbed.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from statistics import fmean, stdev
from typing import Any, final

from trainer.errors import DataError

Row = Mapping[str, Any]

LEAST_SEEDS = 3  # of each side, for a difference to be called one
DISTURBED = 0.1  # share of the machine that others used, above which a run's seconds do not count
LAST_TESTS = 5  # that steadiness is taken over

_SINGLE = "single"
_MOST_POINTS = 200
_SHARED = ("net", "solver", "metric", "batch", "iterations")


@final
@dataclass(frozen=True)
class Spread:
    """A figure of several runs: one value for each."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return fmean(self.values)

    @property
    def low(self) -> float:
        """The lowest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The highest."""
        return max(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample's standard deviation; None for a single value."""
        return stdev(self.values) if len(self.values) > 1 else None


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return the spread of what is there; None for nothing."""
    there = tuple(value for value in values if value is not None)
    return Spread(there) if there else None


@final
@dataclass(frozen=True)
class Outcome:
    """What came of one combination: its runs, one for each seed.

    Attributes:
        label, strategy, workers, options, per_worker: As in its rows.
        rows: One for each seed, by seed.
    """

    label: str
    strategy: str
    workers: int
    options: Mapping[str, Any]
    per_worker: bool
    rows: tuple[Row, ...]

    @property
    def is_single(self) -> bool:
        """Whether it is one process."""
        return self.strategy == _SINGLE

    @cached_property
    def finished(self) -> tuple[Row, ...]:
        """Runs that came to their end with a value."""
        return tuple(row for row in self.rows if row["status"] == "finished")

    @property
    def diverged(self) -> tuple[Row, ...]:
        """Runs that lost their numbers."""
        return tuple(row for row in self.rows if row["status"] == "diverged")

    @property
    def undisturbed(self) -> tuple[Row, ...]:
        """Finished runs that had the machine to themselves."""
        return tuple(row for row in self.finished if not is_disturbed(row))


@final
@dataclass(frozen=True)
class Comparison:
    """All outcomes of one net.

    Attributes:
        outcomes: The single run first, then in the order of their first rows.
        metric: `accuracy` or `loss`: what `final` of a row is.
    """

    outcomes: tuple[Outcome, ...]
    metric: str

    @property
    def lower_is_better(self) -> bool:
        """Whether less of the metric is better."""
        return self.metric != "accuracy"

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """All runs."""
        return tuple(row for outcome in self.outcomes for row in outcome.rows)

    @cached_property
    def finished(self) -> tuple[Outcome, ...]:
        """Outcomes with at least one run that finished."""
        return tuple(outcome for outcome in self.outcomes if outcome.finished)

    @property
    def baseline(self) -> Outcome | None:
        """The single run; None if it has not finished."""
        return next((outcome for outcome in self.finished if outcome.is_single), None)


def gather(rows: Iterable[Row]) -> Comparison:
    """Return the outcomes of rows; of several rows of one run the last counts.

    Raises:
        DataError: The rows are of several nets, solvers, metrics, batches or iterations.
    """
    runs: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        runs[_combination(row)][row["seed"]] = row
    outcomes = [_outcome([by_seed[seed] for seed in sorted(by_seed)]) for by_seed in runs.values()]
    outcomes.sort(key=lambda outcome: not outcome.is_single)
    every = [row for outcome in outcomes for row in outcome.rows]
    finished = [row for row in every if row["status"] == "finished"]
    for name in _SHARED:
        _check_shared(name, every if name in ("net", "solver") else finished)
    return Comparison(tuple(outcomes), finished[0]["metric"] if finished else "accuracy")


def _combination(row: Row) -> str:
    names = ("strategy", "workers", "options", "per_worker")
    return json.dumps([row.get(name) for name in names], sort_keys=True)


def _outcome(rows: Sequence[Row]) -> Outcome:
    first = rows[0]
    return Outcome(
        label=first["label"],
        strategy=first["strategy"],
        workers=first["workers"],
        options=first["options"],
        per_worker=bool(first.get("per_worker")),
        rows=tuple(rows),
    )


def _check_shared(name: str, rows: Sequence[Row]) -> None:
    values = list(dict.fromkeys(row.get(name) for row in rows))
    if len(values) > 1:
        raise DataError(
            f"results: expected runs of one {name}; received {' and '.join(map(str, values))}; "
            "make a report of each apart"
        )


def is_disturbed(row: Row) -> bool:
    """Return whether others used so much of the machine that a run's seconds mean little."""
    return (row.get("other_load") or 0.0) > DISTURBED


@final
@dataclass(frozen=True)
class Curve:
    """A quantity over the seeds of an outcome, at the samples that all of them reached.

    Attributes:
        samples, iterations, worker_iterations, seconds: Where each point is, counted for the whole
            run, for the run as its solver counts, for each worker alone, and on the clock (the
            mean over seeds of when they were there).
        mean, low, high: The quantity there.
        seeds: How many runs it is of.
    """

    samples: tuple[float, ...]
    iterations: tuple[float, ...]
    worker_iterations: tuple[float, ...]
    seconds: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int


@final
@dataclass(frozen=True)
class _Line:
    """A quantity of one run by samples, which ascend."""

    samples: Sequence[float]
    seconds: Sequence[float]
    values: Sequence[float]

    def at(self, samples: float) -> tuple[float, float]:
        """Return seconds and value at `samples`, between the points on a straight line."""
        after = bisect_right(self.samples, samples)
        if after == len(self.samples):
            return self.seconds[-1], self.values[-1]
        before, start, end = after - 1, self.samples[after - 1], self.samples[after]
        part = (samples - start) / (end - start)
        return (
            _between(self.seconds[before], self.seconds[after], part),
            _between(self.values[before], self.values[after], part),
        )


def _between(start: float, end: float, part: float) -> float:
    return start + (end - start) * part


def curve(outcome: Outcome, quantity: str, kind: str = "tests") -> Curve | None:
    """Return the curve of a quantity over the finished runs of an outcome.

    Between a run's points it is taken to be straight. Points of several workers at one count of
    samples are averaged first.

    Args:
        outcome: The runs.
        quantity: Such as `accuracy` or `loss`.
        kind: `tests` or `train`, the field of a row that has it.

    Returns:
        The curve, of 200 points at most; None if there is no such quantity.
    """
    lines = [line for row in outcome.finished if (line := _line(row[kind], quantity))]
    if not lines:
        return None
    start = max(line.samples[0] for line in lines)
    end = min(line.samples[-1] for line in lines)
    grid = sorted({x for line in lines for x in line.samples if start <= x <= end})
    step = -(-len(grid) // _MOST_POINTS) or 1
    grid = [*grid[:-1:step], *grid[-1:]]
    points = [[line.at(x) for line in lines] for x in grid]
    values = [[value for _, value in point] for point in points]
    row = outcome.finished[0]
    return Curve(
        samples=tuple(grid),
        iterations=tuple(x * row["iterations"] / row["samples"] for x in grid),
        worker_iterations=tuple(x / row["batch"] / outcome.workers for x in grid),
        seconds=tuple(fmean(seconds for seconds, _ in point) for point in points),
        mean=tuple(map(fmean, values)),
        low=tuple(map(min, values)),
        high=tuple(map(max, values)),
        seeds=len(lines),
    )


def _line(points: Sequence[Row], quantity: str) -> _Line | None:
    at: dict[float, list[Row]] = defaultdict(list)
    for point in points:
        value = point.get(quantity)
        if value is not None and math.isfinite(value):
            at[point["samples"]].append(point)
    if not at:
        return None
    samples = sorted(at)
    seconds, values = (
        [fmean(point[name] for point in at[x]) for x in samples] for name in ("seconds", quantity)
    )
    return _Line(samples, seconds, values)


def finals(outcome: Outcome) -> Spread | None:
    """Return the final values of the metric."""
    return spread(row["final"] for row in outcome.finished)


def seconds(outcome: Outcome) -> Spread | None:
    """Return the seconds that training took, of undisturbed runs."""
    return spread(row["seconds"] for row in outcome.undisturbed)


def reached(row: Row, target: float, axis: str, *, lower_is_better: bool = False) -> float | None:
    """Return where a run first reached a level, on a straight line between two tests.

    Args:
        row: A run.
        target: The level of the row's metric.
        axis: `samples` or `seconds`.
        lower_is_better: The level is reached from above.

    Returns:
        The samples or seconds; None if it was not reached.
    """
    sign = -1.0 if lower_is_better else 1.0
    before: tuple[float, float] | None = None
    for test in row["tests"]:
        value = test.get(row["metric"])
        if value is None or not math.isfinite(value):
            continue
        here, gap = float(test[axis]), sign * (value - target)
        if gap >= 0:
            if before is None:
                return here
            earlier, missing = before
            return _between(earlier, here, missing / (missing + gap))
        before = (here, -gap)
    return None


@final
@dataclass(frozen=True)
class Reach:
    """How far an outcome's runs had to go to a level.

    Attributes:
        runs: How many runs were asked: the finished ones, for seconds the undisturbed ones.
        spread: Of those that reached it; None if none did.
    """

    runs: int
    spread: Spread | None

    @property
    def by_all(self) -> Spread | None:
        """The spread if every run reached the level: others' mean would flatter."""
        return self.spread if self.spread and len(self.spread.values) == self.runs else None


def reach(comparison: Comparison, outcome: Outcome, target: float, axis: str) -> Reach:
    """Return how many `samples` or `seconds` it took an outcome's runs to reach a level."""
    runs = outcome.undisturbed if axis == "seconds" else outcome.finished
    lower = comparison.lower_is_better
    found = spread(reached(row, target, axis, lower_is_better=lower) for row in runs)
    return Reach(len(runs), found)


def ratio(baseline: Spread | None, own: Spread | None) -> float | None:
    """Return how many times as much the baseline needed; None if one of the two is missing."""
    return baseline.mean / own.mean if baseline and own and own.mean > 0 else None


@final
@dataclass(frozen=True)
class Steadiness:
    """How quietly an outcome's runs went.

    Attributes:
        last: Standard deviation of a run's last 5 tests; a net that still improves has some of
            it from that.
        fall: The most that a run fell back behind its best test so far.
    """

    last: Spread
    fall: Spread


def steadiness(comparison: Comparison, outcome: Outcome) -> Steadiness | None:
    """Return how quietly an outcome's runs went; None if none was tested three times."""
    series = [
        line.values
        for row in outcome.finished
        if (line := _line(row["tests"], comparison.metric)) and len(line.values) > LAST_TESTS // 2
    ]
    if not series:
        return None
    sign = -1.0 if comparison.lower_is_better else 1.0
    return Steadiness(
        last=Spread(tuple(stdev(values[-LAST_TESTS:]) for values in series)),
        fall=Spread(tuple(_largest_fall([sign * value for value in values]) for values in series)),
    )


def _largest_fall(values: Sequence[float]) -> float:
    best, fall = values[0], 0.0
    for value in values:
        best = max(best, value)
        fall = max(fall, best - value)
    return fall


@final
@dataclass(frozen=True)
class Costs:
    """What the exchanges of an outcome took, in the mean of its runs.

    Attributes:
        count: Exchanges of a run.
        compute_s, exchange_s: Seconds of all its workers together.
        sent_bytes, received_bytes: Of all its workers.
        staleness: Share of the exchanges with each staleness, of all runs together; empty if all
            exchanged together.
        staleness_mean: Their mean.
    """

    count: float
    compute_s: float
    exchange_s: float
    sent_bytes: float
    received_bytes: float
    staleness: Mapping[int, float]
    staleness_mean: float

    @property
    def exchange_share(self) -> float:
        """The part of the workers' time that went into exchanges."""
        total = self.compute_s + self.exchange_s
        return self.exchange_s / total if total > 0 else 0.0


def costs(outcome: Outcome) -> Costs | None:
    """Return what an outcome's exchanges took; None for a single process."""
    exchanges = [row["exchanges"] for row in outcome.finished if row.get("exchanges")]
    if not exchanges:
        return None
    counts: Counter[int] = Counter()
    for exchange in exchanges:
        counts.update({int(stale): n for stale, n in (exchange.get("staleness") or {}).items()})
    total = counts.total()
    shares = {stale: counts[stale] / total for stale in sorted(counts)} if any(counts) else {}
    return Costs(
        **{
            name: fmean(exchange[name] for exchange in exchanges)
            for name in ("count", "compute_s", "exchange_s", "sent_bytes", "received_bytes")
        },
        staleness=shares,
        staleness_mean=sum(stale * share for stale, share in shares.items()),
    )


@final
class Relation(Enum):
    """What may be said of two outcomes in one figure."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "no difference"
    OPEN = "too few runs to say"


def relation(these: Spread | None, those: Spread | None, *, lower_is_better: bool) -> Relation:
    """Return what may be said of these values against those.

    They differ only if every one of these is better, or every one worse, than every one of those,
    and there are at least three of each. Two threes of the same origin come apart like that, one
    way, once in twenty draws.
    """
    if not these or not those or min(len(these.values), len(those.values)) < LEAST_SEEDS:
        return Relation.OPEN
    if these.low > those.high:
        return Relation.WORSE if lower_is_better else Relation.BETTER
    if these.high < those.low:
        return Relation.BETTER if lower_is_better else Relation.WORSE
    return Relation.SAME
