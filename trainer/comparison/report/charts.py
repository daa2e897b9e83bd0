"""What the page's script draws: figures as plain data, and how each combination looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from trainer.comparison.analysis import costs, finals, reach, seconds, steadiness, unbeaten
from trainer.comparison.curves import Curve, curve
from trainer.comparison.levels import Level, default_level, levels
from trainer.comparison.outcomes import Comparison, Outcome, Spread
from trainer.comparison.wording import value_text

_SERIES, _DASHES, _SYMBOLS = 8, 4, 6  # colours, dashes and symbols that the page has
_MOST_SHOWN = 7  # curves at first
_QUANTITIES = {
    "accuracy": ("tests", "accuracy", "Test accuracy"),
    "loss": ("tests", "loss", "Test loss"),
    "train": ("train", "loss", "Training loss"),
}


def chart_data(comparison: Comparison) -> dict[str, Any]:
    """Return all that is drawn, ready for JSON."""
    asked = levels(comparison)
    default = default_level(comparison)
    looks = _looks(comparison.outcomes)
    shown, front = _shown_first(comparison), unbeaten(comparison)
    outcomes = [
        {
            "label": outcome.label,
            "single": outcome.is_single,
            "shown": outcome in shown,
            "unbeaten": outcome in front,
            **look,
            **_figures(comparison, outcome, asked),
        }
        for outcome, look in zip(comparison.outcomes, looks, strict=True)
        if outcome.finished
    ]
    return {
        "metric": comparison.metric,
        "lowerIsBetter": comparison.lower_is_better,
        "quantities": {
            name: title
            for name, (_, _, title) in _QUANTITIES.items()
            if any(outcome["curves"][name] for outcome in outcomes)
        },
        "levels": [_level(level) for level in asked],
        "level": asked.index(default) if default else None,
        "outcomes": outcomes,
    }


def _looks(outcomes: Sequence[Outcome]) -> list[dict[str, int]]:
    """Return colour by strategy, dash by workers, symbol by options; colour 0 is one process."""
    strategies = list(dict.fromkeys(o.strategy for o in outcomes if not o.is_single))
    counts = sorted({outcome.workers for outcome in outcomes if not outcome.is_single})
    variants: dict[str, list[str]] = {strategy: [] for strategy in strategies}
    looks = []
    for outcome in outcomes:
        if outcome.is_single:
            looks.append({"colour": 0, "dash": 0, "symbol": 0})
            continue
        options, own = str(outcome.options), variants[outcome.strategy]
        if options not in own:
            own.append(options)
        looks.append(
            {
                "colour": strategies.index(outcome.strategy) % _SERIES + 1,
                "dash": counts.index(outcome.workers) % _DASHES,
                "symbol": own.index(options) % _SYMBOLS,
            }
        )
    return looks


def _shown_first(comparison: Comparison) -> list[Outcome]:
    """Return all outcomes if they are few, else the best of each strategy."""
    if len(comparison.finished) <= _MOST_SHOWN:
        return list(comparison.finished)
    sign = -1 if comparison.lower_is_better else 1
    best: dict[str, tuple[float, Outcome]] = {}
    for outcome in comparison.finished:
        final = finals(outcome)
        if final is None:
            continue
        value = sign * final.mean
        if outcome.strategy not in best or value > best[outcome.strategy][0]:
            best[outcome.strategy] = (value, outcome)
    return [outcome for _, outcome in best.values()]


def _figures(comparison: Comparison, outcome: Outcome, asked: Sequence[Level]) -> dict[str, Any]:
    steady, cost = steadiness(comparison, outcome), costs(outcome)
    return {
        "curves": {
            name: _curve(curve(outcome, quantity, kind))
            for name, (kind, quantity, _) in _QUANTITIES.items()
        },
        "final": _spread(finals(outcome)),
        "seconds": _spread(seconds(outcome)),
        "disturbed": outcome.is_disturbed,
        "reach": {
            axis: [_reach(comparison, outcome, level.value, axis) for level in asked]
            for axis in ("seconds", "samples")
        },
        "last": _spread(steady.last) if steady else None,
        "fall": _spread(steady.fall) if steady else None,
        "exchangeShare": _rounded(cost.exchange_share) if cost else None,
        "staleness": (
            {stale: _rounded(share) for stale, share in cost.staleness.items()} if cost else {}
        ),
    }


def _reach(comparison: Comparison, outcome: Outcome, level: float, axis: str) -> dict[str, Any]:
    found = reach(comparison, outcome, level, axis)
    return {"runs": found.runs, "spread": _spread(found.spread)}


def _spread(found: Spread | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "values": [_rounded(value) for value in found.values],
        **{name: _rounded(getattr(found, name)) for name in ("mean", "low", "high")},
    }


def _curve(found: Curve | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        name: [_rounded(value) for value in values] if isinstance(values, tuple) else values
        for name, values in asdict(found).items()
    }


def _level(level: Level) -> dict[str, Any]:
    text = value_text(level.value)
    return {"value": level.value, "text": f"{text}: {level.meaning}" if level.meaning else text}


def _rounded(value: float) -> float:
    """Return a number with the digits that a picture can show."""
    return float(f"{value:.6g}")
