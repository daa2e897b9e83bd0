"""Figures of a comparison: final values, the way to a level, steadiness, costs, differences.

Each is of all runs of an outcome that finished, a value for each. Times leave out the runs that
other processes disturbed, unless all were; then there is nothing to be claimed of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import fmean, stdev
from typing import final

from trainer.comparison.curves import between, line_of
from trainer.comparison.outcomes import Comparison, Outcome, Row, Spread, spread

LEAST_SEEDS = 3  # of each side, for a difference to be called one
LAST_TESTS = 5  # that steadiness is taken over


def finals(outcome: Outcome) -> Spread | None:
    """Return the final values of the metric."""
    return spread(row["final"] for row in outcome.finished)


def seconds(outcome: Outcome) -> Spread | None:
    """Return the seconds that training took."""
    return spread(row["seconds"] for row in outcome.timed)


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
    line = line_of(row["tests"], row["metric"])
    if line is None:
        return None
    places = line.samples if axis == "samples" else line.seconds
    missing = [value - target if lower_is_better else target - value for value in line.values]
    there = next((index for index, gap in enumerate(missing) if gap <= 0), None)
    if not there:
        return None if there is None else places[0]
    before = there - 1
    part = missing[before] / (missing[before] - missing[there])
    return between(places[before], places[there], part)


@final
@dataclass(frozen=True)
class Reach:
    """How far an outcome's runs had to go to a level.

    Attributes:
        runs: How many runs were asked: the finished ones, for seconds the timed ones.
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
    runs = outcome.timed if axis == "seconds" else outcome.finished
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
        last: Standard deviation of a run's last 5 tests, that before training not among them; a
            net that still improves has some of it from that.
        fall: The most that a run fell back behind its best test so far.
    """

    last: Spread
    fall: Spread


def steadiness(comparison: Comparison, outcome: Outcome) -> Steadiness | None:
    """Return how quietly an outcome's runs went; None if none was tested three times."""
    series = [
        line.values
        for row in outcome.finished
        if (line := line_of([test for test in row["tests"] if test["samples"]], comparison.metric))
        and len(line.values) > LAST_TESTS // 2
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


def unbeaten(comparison: Comparison) -> list[Outcome]:
    """Return the outcomes that no other beats, on average, in both final value and seconds."""
    sign = -1 if comparison.lower_is_better else 1
    points = [
        (sign * final.mean, clock.mean, outcome)
        for outcome in comparison.finished
        if (final := finals(outcome)) and (clock := seconds(outcome))
    ]
    return [
        outcome
        for value, clock, outcome in points
        if not any(other > value and faster < clock for other, faster, _ in points)
    ]
