"""What follows from a comparison, in plain sentences, by rules that the report states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from trainer.comparison.analysis import LEAST_SEEDS, Relation
from trainer.comparison.findings import Finding, View, findings
from trainer.comparison.levels import default_level
from trainer.comparison.outcomes import Comparison, Outcome
from trainer.comparison.wording import plural, range_text, seconds_text, value_text

RULE = (
    "Two combinations are told apart only if every run of the one is better than every run of the "
    f"other, with at least {LEAST_SEEDS} seeds each; otherwise their difference counts as none. "
    "Two threes that do not differ at all come apart like that once in ten times."
)


@final
@dataclass(frozen=True)
class Verdict:
    """What to do, and what it rests on.

    Attributes:
        advice: Which combination to take, or that it is too early to say.
        reason: Why.
        is_settled: Whether there are enough seeds for it.
        findings: The answers to single questions.
    """

    advice: str
    reason: str
    is_settled: bool
    findings: tuple[Finding, ...]


# Advice, its reason, and whether it is settled.
_NO_RUN = ("Nothing to say yet.", "No run has finished.", False)
_NONE_SOUND = ("None of these can be advised.", "In each of them runs diverged.", False)


def verdict(comparison: Comparison) -> Verdict:
    """Return what follows from the finished runs."""
    if not comparison.finished:
        have_diverged = [bool(outcome.diverged) for outcome in comparison.outcomes]
        return Verdict(*(_NONE_SOUND if have_diverged and all(have_diverged) else _NO_RUN), ())
    view = View(comparison, default_level(comparison))
    advice, reason, is_settled = _advice(view)
    return Verdict(advice, reason, is_settled, tuple(findings(view)))


def _advice(view: View) -> tuple[str, str, bool]:
    pool = [outcome for outcome in view.sound if len(outcome.finished) >= LEAST_SEEDS]
    if not view.sound:
        return _NONE_SOUND
    if len(pool) < 2:
        return _early_advice(view)
    best = view.best(pool)
    top = [o for o in pool if view.in_quality(o, best) is not Relation.WORSE]
    single = view.comparison.baseline
    chosen = view.fastest(top) or best
    if single in top and view.in_time(chosen, single) is not Relation.BETTER:
        return (
            f"Train in one process (‘{single.label}’).",
            f"Of {plural(len(pool) - 1, 'other combination')} none was clearly better in final "
            f"{view.metric}, and none that was as good was clearly faster.",
            True,
        )
    return f"Take ‘{chosen.label}’.", _reason(view, chosen, top), True


def _early_advice(view: View) -> tuple[str, str, bool]:
    best = view.best(view.sound)
    fastest = view.fastest(view.sound)
    reason = (
        f"Fewer than two combinations have the {LEAST_SEEDS} seeds that a claim needs: no "
        f"difference counts yet. So far ‘{best.label}’ has the best final {view.metric}, "
        f"{range_text(view.final(best))}"
    )
    if fastest and view.level:
        reason += f", and ‘{fastest.label}’ was first at {value_text(view.level.value)}"
    return "It is too early to choose.", reason + ".", False


def _reason(view: View, chosen: Outcome, top: Sequence[Outcome]) -> str:
    single = view.comparison.baseline
    reason = f"Its final {view.metric} is {range_text(view.final(chosen))}"
    reason += ", the best" if len(top) == 1 else ", not clearly different from the best"
    if single:
        is_worse = view.in_quality(single, chosen) is Relation.WORSE
        has = "is clearly worse with" if is_worse else "has"
        reason += f"; the single run {has} {range_text(view.final(single))}"
    time = view.time(chosen)
    if time is None or view.level is None:
        return reason + "."
    first = "It was the first of these" if len(top) > 1 else "It was"
    reason += f". {first} at {value_text(view.level.value)}: after {seconds_text(time.mean)}"
    return f"{reason}{view.speed_text(chosen)}."
