"""Curves of a comparison: a quantity over the seeds of an outcome."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import final

from trainer.comparison.outcomes import Outcome, Row

_MOST_POINTS = 200


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
class Line:
    """A quantity of one run.

    Attributes:
        samples: Where its points are, ascending.
        seconds, values: When, and what it was.
    """

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
            between(self.seconds[before], self.seconds[after], part),
            between(self.values[before], self.values[after], part),
        )


def between(start: float, end: float, part: float) -> float:
    """Return the number a part of the way from one to another."""
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
    lines = [line for row in outcome.finished if (line := line_of(row[kind], quantity))]
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


def line_of(points: Sequence[Row], quantity: str) -> Line | None:
    """Return a quantity of one run; None if it has no finite value anywhere."""
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
    return Line(samples, seconds, values)
