"""Answers to the single questions of a comparison, in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from trainer.comparison.analysis import Relation, costs, ratio, reach, relation, steadiness
from trainer.comparison.levels import Level
from trainer.comparison.outcomes import Comparison, Outcome, Spread
from trainer.comparison.wording import (
    listed,
    plural,
    range_text,
    seconds_text,
    share_text,
    value_text,
)


@final
@dataclass(frozen=True)
class View:
    """A comparison as it is judged.

    Attributes:
        comparison: The runs.
        level: That times are taken to; None for no times.
    """

    comparison: Comparison
    level: Level | None

    @property
    def metric(self) -> str:
        """What final values are of."""
        return self.comparison.metric

    @property
    def sound(self) -> list[Outcome]:
        """Outcomes that may be advised: no run of theirs diverged."""
        return [outcome for outcome in self.comparison.finished if not outcome.diverged]

    def final(self, outcome: Outcome) -> Spread:
        """Return the final values of an outcome that has some."""
        return Spread(tuple(row["final"] for row in outcome.finished))

    def time(self, outcome: Outcome) -> Spread | None:
        """Return the seconds to the level if every run got there."""
        if self.level is None:
            return None
        return reach(self.comparison, outcome, self.level.value, "seconds").by_all

    def in_quality(self, outcome: Outcome, other: Outcome) -> Relation:
        """Return what may be said of two outcomes' final values."""
        lower = self.comparison.lower_is_better
        return relation(self.final(outcome), self.final(other), lower_is_better=lower)

    def in_time(self, outcome: Outcome, other: Outcome) -> Relation:
        """Return what may be said of two outcomes' times to the level."""
        if outcome.is_disturbed or other.is_disturbed:
            return Relation.OPEN
        return relation(self.time(outcome), self.time(other), lower_is_better=True)

    def best(self, outcomes: Sequence[Outcome]) -> Outcome:
        """Return the outcome with the best final value on average."""
        sign = -1 if self.comparison.lower_is_better else 1
        return max(outcomes, key=lambda outcome: sign * self.final(outcome).mean)

    def fastest(self, outcomes: Sequence[Outcome]) -> Outcome | None:
        """Return the first at the level on average; None if none got there."""
        timed = [(time.mean, outcome) for outcome in outcomes if (time := self.time(outcome))]
        return min(timed, key=lambda pair: pair[0])[1] if timed else None

    def speed_text(self, outcome: Outcome) -> str:
        """Return `, 1.6 times as fast as the single run`; nothing where that cannot be said."""
        single = self.comparison.baseline
        speed = ratio(self.time(single), self.time(outcome)) if single else None
        if speed is None or single is outcome:
            return ""
        return f", {speed:.1f} times as fast as the single run"


@final
@dataclass(frozen=True)
class Finding:
    """A sentence or two on one question.

    Attributes:
        topic: The question, in a word or two.
        text: What the runs say to it.
    """

    topic: str
    text: str


def findings(view: View) -> Iterator[Finding]:
    """Answer the questions that the finished runs have an answer to."""
    for answer in (_quality, _against_single, _time, _both, _steadiness, _exchange):
        if finding := answer(view):
            yield finding


def _quality(view: View) -> Finding | None:
    if not view.sound:
        return None
    best = view.best(view.sound)
    text = f"Best on average is ‘{best.label}’: {range_text(view.final(best))}."
    others = [outcome for outcome in view.sound if outcome is not best]
    rivals = _rivals([(outcome, view.in_quality(outcome, best)) for outcome in others])
    if others and not rivals:
        rivals = " All others are clearly worse."
    return Finding(f"Final {view.metric}", text + rivals)


def _against_single(view: View) -> Finding | None:
    single = view.comparison.baseline
    others = [outcome for outcome in view.comparison.finished if outcome is not single]
    if single is None or not others:
        return None
    by = {
        kind: [outcome for outcome in others if view.in_quality(outcome, single) is kind]
        for kind in Relation
    }
    parts = [f"{kind.value}: {listed(found)}" for kind, found in by.items() if found]
    return Finding(
        "Against one process",
        f"The single run has {range_text(view.final(single))}. To it, {'; '.join(parts)}.",
    )


def _time(view: View) -> Finding | None:
    if view.level is None:
        return None
    meaning = f" ({view.level.meaning})" if view.level.meaning else ""
    topic, level = "Time", f"{value_text(view.level.value)}{meaning}"
    fastest = view.fastest(view.sound)
    time = view.time(fastest) if fastest else None
    if fastest is None or time is None:
        return Finding(topic, f"No combination got to {level} with all its seeds.")
    text = (
        f"First at {level} is ‘{fastest.label}’: {seconds_text(time.mean)} on average of "
        f"{plural(len(time.values), 'run')}{view.speed_text(fastest)}."
        f"{' These runs were disturbed.' if fastest.is_disturbed else ''}"
    )
    rivals = [
        (outcome, view.in_time(outcome, fastest))
        for outcome in view.sound
        if outcome is not fastest and view.time(outcome)
    ]
    return Finding(topic, text + _rivals(rivals))


def _rivals(others: Sequence[tuple[Outcome, Relation]]) -> str:
    """Return who may be as good as the first, by what may be said of each against it."""
    texts = (
        (Relation.SAME, "No clear difference from it"),
        (Relation.OPEN, "Not to be told from it by these runs"),
    )
    named = [(text, [o for o, known in others if known is kind]) for kind, text in texts]
    return "".join(f" {text}: {listed(found)}." for text, found in named if found)


def _both(view: View) -> Finding | None:
    single = view.comparison.baseline
    others = [outcome for outcome in view.sound if outcome is not single]
    if single is None or not others:
        return None
    faster = [o for o in others if view.in_time(o, single) is Relation.BETTER]
    by = {
        kind: [outcome for outcome in faster if view.in_quality(outcome, single) is kind]
        for kind in (Relation.BETTER, Relation.SAME)
    }
    better, as_good = (listed(found) if found else "none" for found in by.values())
    return Finding(
        "Both at once",
        f"Clearly better than one process and clearly faster: {better}. Clearly faster at no "
        f"difference in {view.metric}: {as_good}.",
    )


def _steadiness(view: View) -> Finding | None:
    found = [(o, each) for o in view.sound if (each := steadiness(view.comparison, o))]
    if len(found) < 2:
        return None
    (calm, least), (wild, most) = (
        pick(found, key=lambda pair: pair[1].last.mean) for pick in (min, max)
    )
    return Finding(
        "Steadiness",
        f"Over the last tests of a run the {view.metric} varied least with ‘{calm.label}’ "
        f"(standard deviation {value_text(least.last.mean)}) and most with ‘{wild.label}’ "
        f"({value_text(most.last.mean)}).",
    )


def _exchange(view: View) -> Finding | None:
    found = [(o, cost.exchange_share) for o in view.comparison.finished if (cost := costs(o))]
    if not found:
        return None
    (least, low), (most, high) = (pick(found, key=lambda pair: pair[1]) for pick in (min, max))
    if least is most:
        text = f"Exchanges took {share_text(low)} of the workers’ time."
    else:
        text = (
            f"Exchanges took from {share_text(low)} of the workers’ time (‘{least.label}’) to "
            f"{share_text(high)} (‘{most.label}’), waiting for others included."
        )
    return Finding("Exchanges", text)
