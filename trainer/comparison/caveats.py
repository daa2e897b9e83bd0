"""What the figures of a comparison do and do not show: computed from the runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainer.comparison.analysis import LEAST_SEEDS
from trainer.comparison.curves import curve
from trainer.comparison.levels import default_level
from trainer.comparison.outcomes import (
    DISTURBED,
    Comparison,
    Outcome,
    agree,
    is_disturbed,
    spread,
)
from trainer.comparison.wording import count_text, listed, plural, seconds_text, share_text


def caveats(comparison: Comparison, planned: Sequence[str] = ()) -> list[str]:
    """Return what has to be kept in mind, the weightiest first.

    Args:
        comparison: The runs.
        planned: Names of runs that are still to come.
    """
    found = [*_unfinished(comparison, planned)]
    if comparison.finished:
        found += _seeds(comparison)
        found += _disturbed(comparison)
        found += _clock(comparison)
        found += _schedule(comparison)
        found += _choosing(comparison)
    return found


def _unfinished(comparison: Comparison, planned: Sequence[str]) -> Iterator[str]:
    if planned:
        yield (
            f"The comparison is under way. Still to come, and able to change all of this: "
            f"{plural(len(planned), 'run')} of {len(planned) + len(comparison.rows)}."
        )
    failed = [outcome for outcome in comparison.outcomes if outcome.failed]
    if failed:
        count = sum(len(outcome.failed) for outcome in failed)
        yield f"Missing from every figure, as failed: {plural(count, 'run')} of {listed(failed)}."
    diverged = [outcome for outcome in comparison.outcomes if outcome.diverged]
    if diverged:
        yield (
            f"Runs diverged with {listed(diverged)}. The means are of the runs that did not, which "
            "flatters these combinations; none of them is advised."
        )


def _seeds(comparison: Comparison) -> Iterator[str]:
    counts = [len(outcome.finished) for outcome in comparison.finished]
    few, many = min(counts), max(counts)
    text = f"{plural(few, 'seed')} each" if few == many else f"{few} to {many} seeds"
    if many < LEAST_SEEDS:
        yield (
            f"The combinations have {text}. Another seed moves the results, by how much "
            f"cannot be seen from fewer than {LEAST_SEEDS}: no claim rests on them."
        )
    else:
        yield (
            f"The combinations have {text}. Small differences cannot be seen with so "
            "few: what is called no difference here may be one."
        )


def _disturbed(comparison: Comparison) -> Iterator[str]:
    disturbed = [row for row in comparison.rows if is_disturbed(row)]
    if disturbed:
        yield (
            f"In {plural(len(disturbed), 'run')} (marked ⚠) other programs used more than "
            f"{share_text(DISTURBED)} of the machine. Times leave them out, but where a "
            "combination has no others they are given, marked, and no claim rests on them. Curves "
            "against seconds include them."
        )


def _clock(comparison: Comparison) -> Iterator[str]:
    rows = [row for outcome in comparison.finished for row in outcome.finished]
    cores = min(row["machine"]["cores"] for row in rows)
    crowded = [outcome for outcome in comparison.finished if outcome.workers > cores]
    if not agree(rows, "machine"):
        yield "The runs are of different machines: their seconds do not compare."
    if crowded:
        most = max(outcome.workers for outcome in crowded)
        yield (
            f"Up to {most} workers shared {plural(cores, 'core')}. Their seconds say little of as "
            "many machines: compare samples, or the iterations of each worker, which is the time "
            "if exchanges were free."
        )
    elif any(not outcome.is_single for outcome in comparison.finished):
        threads = min(row["machine"].get("threads", cores) for row in rows)
        used = "has for itself" if threads == cores else f"uses {threads} of"
        yield (
            f"Seconds are those of a machine with {plural(cores, 'core')}, which the single run "
            f"{used} and workers share with the driver. Over a network exchanges take longer."
        )
    starts = spread(row.get("start_s") for row in rows if row.get("exchanges"))
    spark = f", not the start of Spark ({seconds_text(starts.mean)} on average)" if starts else ""
    yield f"Seconds include the driver’s tests{spark}."
    if not agree(rows, "versions"):
        yield "The runs are of different versions of the software."


def _schedule(comparison: Comparison) -> Iterator[str]:
    rows = [row for outcome in comparison.finished for row in outcome.finished]
    if any(outcome.per_worker for outcome in comparison.finished):
        yield (
            "Iterations count for each worker, as in the papers: more workers see more samples, "
            "so that final values compare unequal amounts of work."
        )
    else:
        yield (
            f"Every run saw {count_text(rows[0]['samples'])} samples, all workers together, by the "
            "same solver: learning rate and momentum were not tuned for a strategy or a number of "
            "workers, and a strategy may do better with its own."
        )
    rising = [outcome for outcome in comparison.finished if _still_improves(comparison, outcome)]
    if rising:
        yield (
            f"{len(rising)} of {plural(len(comparison.finished), 'combination')} still improved at "
            f"the end ({listed(rising)}): a longer training may order them otherwise."
        )


def _still_improves(comparison: Comparison, outcome: Outcome) -> bool:
    """Return whether the last test beats the one before the last fifth of the run."""
    line = curve(outcome, comparison.metric)
    if line is None:
        return False
    late = [i for i, x in enumerate(line.samples) if x <= 0.8 * line.samples[-1]]
    if not late:
        return False
    before, gain = line.mean[late[-1]], line.mean[-1] - line.mean[late[-1]]
    if comparison.lower_is_better:
        gain = -gain
    return gain > 0.02 * abs(before)


def _choosing(comparison: Comparison) -> Iterator[str]:
    count = len(comparison.finished)
    if count > 2:
        yield (
            f"{count} combinations were compared by the tests that also measure them: the best of "
            "many is flattered by having been chosen, and among so many some come apart by chance."
        )
    level = default_level(comparison)
    if level:
        yield (
            "Where a run reached a level is read off the straight line between two tests, at the "
            "first time: it is no finer than the tests are close."
        )
    yield (
        "All of it is about this net, these data, this schedule and this machine. What is tested "
        "is the model that the driver would save: the workers’ average, or the centre."
    )
