"""Outcomes of a comparison: rows of results, brought together by what was run."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any, final

from trainer.errors import DataError
from trainer.plan import SINGLE

Row = Mapping[str, Any]

DISTURBED = 0.1  # share of the machine that others used, above which a run's seconds do not count

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
        return self.strategy == SINGLE

    @cached_property
    def finished(self) -> tuple[Row, ...]:
        """Runs that came to their end with a value."""
        return self._with("finished")

    @property
    def diverged(self) -> tuple[Row, ...]:
        """Runs that lost their numbers."""
        return self._with("diverged")

    @property
    def failed(self) -> tuple[Row, ...]:
        """Runs that ended for another reason."""
        return self._with("failed")

    def _with(self, status: str) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row["status"] == status)

    @property
    def undisturbed(self) -> tuple[Row, ...]:
        """Finished runs that had the machine to themselves."""
        return tuple(row for row in self.finished if not is_disturbed(row))

    @property
    def timed(self) -> tuple[Row, ...]:
        """Runs that times are of: the undisturbed ones, or all finished ones if there are none."""
        return self.undisturbed or self.finished

    @property
    def is_disturbed(self) -> bool:
        """Whether its times are those of disturbed runs."""
        return bool(self.finished) and not self.undisturbed


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


def facts_of(rows: Iterable[Row], field: str) -> dict[str, list[Any]]:
    """Return what runs say in `machine` or `versions`, by name: one value where they agree.

    A run says of the software what it uses, so that names may be missing from some.
    """
    found: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        for name, value in (row.get(field) or {}).items():
            if value is not None and value not in found[name]:
                found[name].append(value)
    return dict(found)


def agree(rows: Iterable[Row], field: str) -> bool:
    """Return whether runs say the same in `machine` or `versions`, as far as they say it."""
    return all(len(values) == 1 for values in facts_of(rows, field).values())
