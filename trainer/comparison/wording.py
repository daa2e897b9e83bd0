"""How a comparison's figures are written."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.comparison.outcomes import Outcome, Spread

_NAMED = 3  # in a sentence


def value_text(value: float) -> str:
    """Return an accuracy or a loss."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def seconds_text(seconds: float) -> str:
    """Return a duration: `41 s`, `12 min`, `3.4 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def count_text(count: float) -> str:
    """Return a number of samples, exchanges or the like."""
    return f"{count:,.0f}"


def bytes_text(count: float) -> str:
    """Return an amount of data: `5.8 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.3g} {unit}" if count < 1000 else f"{count:,.0f} {unit}"


def share_text(share: float) -> str:
    """Return a part of the whole: `12 %`."""
    return f"{100 * share:.0f} %"


def spread_text(spread: Spread) -> str:
    """Return a mean with its standard deviation: `0.712 ± 0.004`."""
    deviation = spread.deviation
    mean = value_text(spread.mean)
    return mean if deviation is None else f"{mean} ± {value_text(deviation)}"


def range_text(spread: Spread) -> str:
    """Return a mean with its range: `0.712 (0.708 to 0.716 over 3 seeds)`."""
    mean = value_text(spread.mean)
    if len(spread.values) == 1:
        return f"{mean} (one seed)"
    return (
        f"{mean} ({value_text(spread.low)} to {value_text(spread.high)} over "
        f"{len(spread.values)} seeds)"
    )


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 run`, `3 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(outcomes: Sequence[Outcome]) -> str:
    """Return labels in a sentence, the first few of many."""
    labels = [f"‘{outcome.label}’" for outcome in outcomes]
    if len(labels) > _NAMED + 1:
        labels = [*labels[:_NAMED], f"{len(labels) - _NAMED} others"]
    return joined(labels)


def joined(texts: Sequence[str]) -> str:
    """Return texts as an enumeration: `a, b and c`."""
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))
