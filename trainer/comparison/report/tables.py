"""The tables of the report, as texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from trainer.comparison.analysis import (
    Costs,
    Reach,
    Steadiness,
    costs,
    finals,
    ratio,
    reach,
    relation,
    seconds,
    steadiness,
)
from trainer.comparison.levels import Level, default_level
from trainer.comparison.outcomes import Comparison, Outcome, Row, Spread, is_disturbed
from trainer.comparison.wording import (
    bytes_text,
    count_text,
    seconds_text,
    share_text,
    spread_text,
    value_text,
)

_NONE = "–"


@final
@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: Their heads.
        rows: Cells; the first of a row names it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def results_table(comparison: Comparison) -> Table:
    """Return what each outcome came to, and how long it took."""
    columns = (
        *("Combination", "Seeds", f"Final {comparison.metric}", "Lowest to highest"),
        *("Against one process", "Seconds to the level", "Speed-up", "Samples to the level"),
        "Seconds in all",
    )
    level = default_level(comparison)
    rows = (_results_row(comparison, each, level) for each in comparison.outcomes)
    return Table(columns, tuple(rows))


def _results_row(comparison: Comparison, outcome: Outcome, level: Level | None) -> tuple[str, ...]:
    final, whole = finals(outcome), seconds(outcome)
    first = (outcome.label, f"{len(outcome.finished)} of {len(outcome.rows)}")
    if final is None:
        return (*first, "diverged" if outcome.diverged else "failed", *(_NONE,) * 6)
    return (
        *first,
        spread_text(final),
        f"{value_text(final.low)} to {value_text(final.high)}",
        _against_single(comparison, outcome),
        *_way(comparison, outcome, level),
        _clock(whole, outcome),
    )


def course_table(comparison: Comparison) -> Table:
    """Return how each outcome got there: steadiness, exchanges."""
    columns = (
        *("Combination", "Spread of the last tests", "Largest fall", "Time in exchanges"),
        *("Exchanges", "Sent by workers", "Mean staleness"),
    )
    rows = (
        (
            outcome.label,
            *_steady_cells(steadiness(comparison, outcome)),
            *_cost_cells(costs(outcome)),
        )
        for outcome in comparison.finished
    )
    return Table(columns, tuple(rows))


def _against_single(comparison: Comparison, outcome: Outcome) -> str:
    single = comparison.baseline
    if single is None or single is outcome:
        return _NONE
    lower = comparison.lower_is_better
    return relation(finals(outcome), finals(single), lower_is_better=lower).value


def _way(comparison: Comparison, outcome: Outcome, level: Level | None) -> tuple[str, str, str]:
    """Return seconds, speed-up and samples to a level."""
    single = comparison.baseline
    if level is None:
        return (_NONE,) * 3
    clock = reach(comparison, outcome, level.value, "seconds")
    samples = reach(comparison, outcome, level.value, "samples")
    own = reach(comparison, single, level.value, "seconds").by_all if single else None
    speed = ratio(own, clock.by_all)
    return (
        _clock(clock.by_all, outcome) if clock.by_all else _missing(clock),
        f"{speed:.2f}×" if speed else _NONE,
        count_text(samples.by_all.mean) if samples.by_all else _missing(samples),
    )


def _clock(found: Spread | None, outcome: Outcome) -> str:
    if found is None:
        return _NONE
    return seconds_text(found.mean) + (" ⚠" if outcome.is_disturbed else "")


def _missing(found: Reach) -> str:
    return f"{len(found.spread.values) if found.spread else 0} of {found.runs} got there"


def _steady_cells(steady: Steadiness | None) -> tuple[str, str]:
    if steady is None:
        return (_NONE, _NONE)
    return (value_text(steady.last.mean), value_text(steady.fall.mean))


def _cost_cells(cost: Costs | None) -> tuple[str, ...]:
    if cost is None:
        return (_NONE,) * 4
    return (
        share_text(cost.exchange_share),
        count_text(cost.count),
        bytes_text(cost.sent_bytes),
        f"{cost.staleness_mean:.1f}" if cost.staleness else _NONE,
    )


def run_table(comparison: Comparison) -> Table:
    """Return every run."""
    columns = (
        *("Run", "Status", f"Final {comparison.metric}", "Seconds", "Start of Spark"),
        "Used by others",
    )
    return Table(columns, tuple(map(_run_row, comparison.rows)))


def _run_row(row: Row) -> tuple[str, ...]:
    final, whole, start = row.get("final"), row.get("seconds"), row.get("start_s")
    load = row.get("other_load")
    return (
        row["run"],
        row["status"],
        _NONE if final is None else value_text(final),
        _NONE if whole is None else seconds_text(whole),
        _NONE if start is None or not row.get("exchanges") else seconds_text(start),
        _NONE if load is None else f"{share_text(load)}{' ⚠' if is_disturbed(row) else ''}",
    )


def faults(comparison: Comparison) -> Table:
    """Return the runs that failed or diverged, and why."""
    rows = [row for row in comparison.rows if row["status"] != "finished"]
    return Table(
        ("Run", "Status", "What it said"),
        tuple((row["run"], row["status"], row.get("error") or _NONE) for row in rows),
    )
