"""Levels of accuracy or loss that the runs of a comparison are timed to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from trainer.comparison.analysis import finals
from trainer.comparison.curves import line_of
from trainer.comparison.outcomes import Comparison, Row

_PARTS = (0.8, 0.9, 0.95, 0.98, 1.0)
_DEFAULT_PART = 0.95
_STEPS = 20  # between the start of the runs and the best of them, at most


@final
@dataclass(frozen=True)
class Level:
    """A level.

    Attributes:
        value: Of the metric.
        meaning: What it is, such as `95 % of the single run’s`; empty for a round number.
    """

    value: float
    meaning: str = ""


def levels(comparison: Comparison) -> list[Level]:
    """Return levels worth asking for: relative to the single run, then round ones."""
    return [*_relative(comparison), *_most(comparison), *_round(comparison)]


def default_level(comparison: Comparison) -> Level | None:
    """Return 95 % of what the single run reaches; without one, what most runs reach.

    For a loss it is what is 5 % above. None if there is nothing to go by.
    """
    found = dict(zip(_PARTS, _relative(comparison), strict=False))
    return found.get(_DEFAULT_PART) or next(iter(_most(comparison)), None)


def _relative(comparison: Comparison) -> list[Level]:
    final = finals(comparison.baseline) if comparison.baseline else None
    if final is None:
        return []
    if comparison.lower_is_better:
        texts = [
            (final.mean * (2 - part), f"{round(100 - 100 * part)} % above the single run’s")
            for part in _PARTS
        ]
    else:
        texts = [
            (final.mean * part, f"{round(100 * part)} % of the single run’s") for part in _PARTS
        ]
    texts[-1] = (final.mean, "the single run’s own")
    return [Level(round(value, 4), text) for value, text in texts]


def _most(comparison: Comparison) -> list[Level]:
    """Return the best level that more than half of the outcomes reach with every seed."""
    sign = -1 if comparison.lower_is_better else 1
    sure = [
        min(sign * best for best in bests)
        for outcome in comparison.finished
        if (bests := [best for row in outcome.finished if (best := _best(row)) is not None])
    ]
    if not sure:
        return []
    value = sorted(sure, reverse=True)[len(sure) // 2]
    return [Level(sign * math.floor(value * 10_000) / 10_000, "the best that most reach")]


def _best(row: Row) -> float | None:
    line = line_of(row["tests"], row["metric"])
    if line is None:
        return None
    return max(line.values) if row["metric"] == "accuracy" else min(line.values)


def _round(comparison: Comparison) -> list[Level]:
    """Return round levels between where the runs started and the best that one of them had."""
    rows = [row for outcome in comparison.finished for row in outcome.finished]
    lines = [line for row in rows if (line := line_of(row["tests"], comparison.metric))]
    values = [value for line in lines for value in line.values]
    if not values:
        return []
    start = lines[0].values[0]
    low, high = sorted((start, min(values) if comparison.lower_is_better else max(values)))
    if high <= low:
        return []
    step = _nice((high - low) / _STEPS)
    first, last = math.floor(low / step) + 1, math.ceil(high / step) - 1
    return [Level(round(number * step, 10)) for number in range(first, last + 1)]


def _nice(step: float) -> float:
    """Return the next number up that is 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * 0.999)
