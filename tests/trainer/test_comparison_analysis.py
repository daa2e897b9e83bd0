"""Figures of a comparison against values worked out by hand, and what is said of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from comparison_rows import make_exchanges, make_failed, make_row

from trainer.comparison.analysis import (
    Relation,
    costs,
    finals,
    ratio,
    reach,
    reached,
    relation,
    seconds,
    steadiness,
    unbeaten,
)
from trainer.comparison.caveats import caveats
from trainer.comparison.curves import curve
from trainer.comparison.levels import Level, default_level, levels
from trainer.comparison.outcomes import Outcome, Spread, gather
from trainer.comparison.report.tables import results_table
from trainer.comparison.verdict import Verdict, verdict
from trainer.comparison.wording import bytes_text, seconds_text
from trainer.errors import DataError

SPARKNET = ("sparknet", 2, {"sync_interval": 10})
DEEPSPARK = ("deepspark", 2, {"sync_interval": 10})


def one(*rows: dict[str, Any]) -> Outcome:
    (outcome,) = gather(rows).outcomes
    return outcome


def seeds_of(*case: Any, finals: tuple[float, ...], seconds: float = 60.0) -> list[dict[str, Any]]:
    """Return a row for each final value, a tenth of a second apart in time."""
    return [
        make_row(*case, seed=seed, values=(0.1, 0.7 * final, final), seconds=seconds + 0.1 * seed)
        for seed, final in enumerate(finals, 1)
    ]


def test_runs_that_differ_in_the_seed_alone_are_one_outcome_and_the_single_run_comes_first() -> (
    None
):
    rows = [
        make_row(*SPARKNET, seed=2),
        make_row(*SPARKNET, seed=1),
        make_row("sparknet", 4, {"sync_interval": 10}),
        make_row("sparknet", 2, {"sync_interval": 50}),
        make_row(),
        make_row(*SPARKNET, per_worker=True),
    ]
    comparison = gather(rows)
    assert [(o.strategy, o.workers, len(o.rows)) for o in comparison.outcomes] == [
        ("single", 1, 1),
        ("sparknet", 2, 2),
        ("sparknet", 4, 1),
        ("sparknet", 2, 1),
        ("sparknet", 2, 1),
    ]
    assert [row["seed"] for row in comparison.outcomes[1].rows] == [1, 2]


def test_of_two_rows_of_a_run_the_later_counts() -> None:
    failed = make_failed("single", 1, 1, "out of memory")
    outcome = one(failed, make_row(values=(0.1, 0.4)))
    assert finals(outcome) == Spread((0.4,))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net", "other.prototxt"),
        ("solver", "x"),
        ("batch", 50),
        ("iterations", 9),
        ("metric", "f1"),
    ],
)
def test_runs_that_do_not_compare_are_refused(name: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"expected runs of one {name}; received .* and {value}"):
        gather([make_row(), make_row(*SPARKNET, **{name: value})])


def test_a_spread_is_mean_range_and_sample_deviation() -> None:
    spread = finals(one(*seeds_of(finals=(0.5, 0.6, 0.7))))
    assert spread is not None
    assert (spread.low, spread.high) == (0.5, 0.7)
    assert spread.mean == pytest.approx(0.6)
    assert spread.deviation == pytest.approx(0.1)  # √((0.01 + 0 + 0.01) / 2)
    assert Spread((0.5,)).deviation is None


def test_failed_and_diverged_runs_have_no_part_in_the_figures() -> None:
    outcome = one(
        make_row(*SPARKNET, seed=1, values=(0.1, 0.5)),
        make_row(*SPARKNET, seed=2, status="diverged", final=None),
        {**make_failed("sparknet", 2, 3, "lost"), "options": {"sync_interval": 10}},
    )
    assert finals(outcome) == Spread((0.5,))
    assert [row["seed"] for row in outcome.diverged] == [2]


def test_a_curve_is_mean_and_range_at_the_samples_that_all_reached() -> None:
    rows = [
        make_row("sparknet", 2, seed=1, values=(0.0, 0.4, 0.6), seconds=40.0),
        make_row("sparknet", 2, seed=2, values=(0.0, 0.6), seconds=60.0),
    ]
    found = curve(one(*rows), "accuracy")
    assert found is not None
    assert found.samples == (0, 50_000, 100_000)
    assert found.iterations == (0, 500, 1000)
    assert found.worker_iterations == (0, 250, 500)
    assert found.seconds == (0.0, 25.0, 50.0)
    assert found.mean == pytest.approx((0.0, 0.35, 0.6))  # the second is 0.3 on its straight line
    assert found.low == pytest.approx((0.0, 0.3, 0.6))
    assert found.high == pytest.approx((0.0, 0.4, 0.6))
    assert found.seeds == 2


def test_a_curve_ends_where_the_first_of_its_runs_does() -> None:
    long = make_row(seed=1, values=(0.0, 0.2, 0.4))
    short = make_row(seed=2, values=(0.0, 0.2, 0.4))
    short["tests"] = short["tests"][:2]
    found = curve(one(long, short), "accuracy")
    assert found is not None
    assert found.samples == (0, 50_000)


def test_losses_that_several_workers_told_at_once_are_averaged_and_gaps_left_out() -> None:
    points = [(100, 2.0), (100, 4.0), (200, None), (300, math.nan), (400, 1.0)]
    train = [{"iteration": x, "samples": x, "seconds": x, "loss": loss} for x, loss in points]
    found = curve(one(make_row(train=train)), "loss", "train")
    assert found is not None
    assert found.samples == (100, 400)
    assert found.mean == (3.0, 1.0)
    assert curve(one(make_row(train=[])), "loss", "train") is None


def test_a_long_curve_is_thinned_and_keeps_its_end() -> None:
    found = curve(one(make_row(values=[0.1] * 1000 + [0.9])), "accuracy")
    assert found is not None
    assert len(found.samples) <= 201
    assert found.mean[-1] == 0.9


def test_a_level_is_reached_between_two_tests_for_the_first_time() -> None:
    row = make_row(values=(0.1, 0.5, 0.3, 0.6, 0.6), seconds=120.0)
    assert reached(row, 0.3, "seconds") == pytest.approx(15.0)  # half of the first 30 s
    assert reached(row, 0.3, "samples") == pytest.approx(12_500)
    assert reached(row, 0.55, "seconds") == pytest.approx(60 + 30 * 25 / 30)
    assert reached(row, 0.1, "seconds") == 0.0
    assert reached(row, 0.7, "seconds") is None


def test_a_loss_reaches_a_level_from_above() -> None:
    row = make_row(metric="loss", values=(0.1, 0.6), seconds=10.0)  # losses 2.3 and 1.3
    assert reached(row, 1.8, "seconds", lower_is_better=True) == pytest.approx(5.0)


def test_the_way_to_a_level_has_a_mean_only_if_all_runs_got_there() -> None:
    comparison = gather(seeds_of(finals=(0.5, 0.6)))
    (outcome,) = comparison.outcomes
    some = reach(comparison, outcome, 0.55, "samples")
    assert (some.runs, some.by_all) == (2, None)
    assert some.spread is not None
    assert len(some.spread.values) == 1
    assert reach(comparison, outcome, 0.5, "samples").by_all is not None


def test_times_leave_disturbed_runs_out() -> None:
    rows = [
        make_row(seed=1, seconds=60.0, other_load=0.5),
        make_row(seed=2, seconds=40.0, other_load=0.1),
    ]
    comparison = gather(rows)
    (outcome,) = comparison.outcomes
    assert seconds(outcome) == Spread((40.0,))
    assert reach(comparison, outcome, 0.6, "seconds").runs == 1
    assert reach(comparison, outcome, 0.6, "samples").runs == 2
    assert not outcome.is_disturbed


def test_where_all_runs_were_disturbed_there_are_times_to_see_but_not_to_claim() -> None:
    outcome = one(make_row(seconds=60.0, other_load=0.5))
    assert outcome.is_disturbed
    assert seconds(outcome) == Spread((60.0,))


def test_a_ratio_is_how_many_times_as_much_the_baseline_needed() -> None:
    assert ratio(Spread((60.0, 80.0)), Spread((35.0,))) == 2.0
    assert ratio(None, Spread((35.0,))) is None
    assert ratio(Spread((60.0,)), Spread((0.0,))) is None


def test_steadiness_is_of_the_last_five_tests_and_the_largest_fall() -> None:
    comparison = gather([make_row(values=(0.1, 0.9, 0.5, 0.6, 0.5, 0.6, 0.5))])
    steady = steadiness(comparison, comparison.outcomes[0])
    assert steady is not None
    # 0.5, 0.6, 0.5, 0.6, 0.5: mean 0.54, Σ of squares 0.012, over 4
    assert steady.last.values == pytest.approx((math.sqrt(0.003),))
    assert steady.fall.values == pytest.approx((0.4,))
    few = gather([make_row(values=(0.1, 0.5, 0.6))])  # the first is before training
    assert steadiness(few, few.outcomes[0]) is None


def test_costs_are_means_of_runs_and_one_histogram_of_all() -> None:
    rows = [
        make_row(*DEEPSPARK, seed=1, exchanges=make_exchanges(80.0, 20.0, {"0": 1, "2": 3})),
        make_row(*DEEPSPARK, seed=2, exchanges=make_exchanges(60.0, 40.0, {"1": 4})),
    ]
    cost = costs(one(*rows))
    assert cost is not None
    assert (cost.compute_s, cost.exchange_s, cost.count) == (70.0, 30.0, 4)
    assert cost.exchange_share == pytest.approx(0.3)
    assert cost.staleness == {0: 0.125, 1: 0.5, 2: 0.375}
    assert cost.staleness_mean == pytest.approx(1.25)
    assert costs(one(make_row())) is None
    together = costs(one(make_row(*SPARKNET)))
    assert together is not None
    assert together.staleness == {}


@pytest.mark.parametrize(
    ("these", "those", "expected"),
    [
        ((0.7, 0.8, 0.9), (0.4, 0.5, 0.6), Relation.BETTER),
        ((0.4, 0.5, 0.6), (0.7, 0.8, 0.9), Relation.WORSE),
        ((0.4, 0.5, 0.7), (0.7, 0.8, 0.9), Relation.SAME),
        ((0.4, 0.5), (0.7, 0.8, 0.9), Relation.OPEN),
    ],
)
def test_outcomes_differ_only_if_all_their_runs_do(
    these: tuple[float, ...], those: tuple[float, ...], expected: Relation
) -> None:
    assert relation(Spread(these), Spread(those), lower_is_better=False) is expected
    mirrored = {Relation.BETTER: Relation.WORSE, Relation.WORSE: Relation.BETTER}
    found = relation(Spread(these), Spread(those), lower_is_better=True)
    assert found is mirrored.get(expected, expected)


def test_unbeaten_is_whom_no_other_beats_in_both() -> None:
    comparison = gather(
        [
            make_row(values=(0.1, 0.7), seconds=60.0),
            make_row("sync", 2, values=(0.1, 0.6), seconds=50.0),
            make_row(*SPARKNET, values=(0.1, 0.5), seconds=55.0),
        ]
    )
    assert [outcome.strategy for outcome in unbeaten(comparison)] == ["single", "sync"]


def test_levels_are_relative_to_the_single_run_then_what_most_reach_then_round() -> None:
    comparison = gather(
        [
            make_row(values=(0.1, 0.6)),
            make_row("sync", 2, values=(0.1, 0.45)),
            make_row(*SPARKNET, values=(0.1, 0.5)),
        ]
    )
    found = levels(comparison)
    assert [level.value for level in found[:6]] == [0.48, 0.54, 0.57, 0.588, 0.6, 0.5]
    assert default_level(comparison) == Level(0.57, "95 % of the single run’s")
    rounded = [level.value for level in found[6:]]
    assert rounded[0] == 0.15  # steps of 0.05: half a step of 0.025 would be more than twenty
    assert rounded[-1] == 0.55


def test_without_a_single_run_the_level_is_what_most_reach() -> None:
    comparison = gather([make_row(*SPARKNET, values=(0.1, 0.5))])
    assert default_level(comparison) == Level(0.5, "the best that most reach")
    assert default_level(gather([])) is None


def test_levels_of_a_loss_are_above_it() -> None:
    comparison = gather([make_row(metric="loss", values=(0.1, 0.75), final=1.0)])
    assert default_level(comparison) == Level(1.05, "5 % above the single run’s")


def judge(*groups: list[dict[str, Any]]) -> Verdict:
    return verdict(gather([row for group in groups for row in group]))


def finding(found: Verdict, topic: str) -> str:
    return next(each.text for each in found.findings if each.topic == topic)


def test_advice_is_the_fastest_of_those_that_cannot_be_told_from_the_best() -> None:
    found = judge(
        seeds_of(finals=(0.60, 0.61, 0.62), seconds=60),
        seeds_of(*SPARKNET, finals=(0.60, 0.61, 0.625), seconds=30),
        seeds_of(*DEEPSPARK, finals=(0.50, 0.51, 0.52), seconds=10),
    )
    assert found.is_settled
    assert found.advice == "Take ‘sparknet, 2 workers, sync_interval 10’."
    assert "0.612 (0.600 to 0.625 over 3 seeds)" in found.reason
    assert "times as fast as the single run" in found.reason
    against = finding(found, "Against one process")
    assert "worse: ‘deepspark, 2 workers, sync_interval 10’" in against
    assert "no difference: ‘sparknet" in against
    both = finding(found, "Both at once")
    assert "clearly faster: none. Clearly faster at no difference in accuracy: ‘sparknet" in both


def test_a_strategy_that_is_better_and_faster_is_named() -> None:
    found = judge(
        seeds_of(finals=(0.60, 0.61, 0.62), seconds=60),
        seeds_of(*DEEPSPARK, finals=(0.70, 0.71, 0.72), seconds=30),
    )
    assert found.advice.startswith("Take ‘deepspark")
    assert "the single run is clearly worse with 0.610" in found.reason
    assert "clearly faster: ‘deepspark" in finding(found, "Both at once")


def test_one_process_is_advised_unless_another_is_clearly_better_or_faster() -> None:
    found = judge(
        seeds_of(finals=(0.60, 0.61, 0.62), seconds=60),
        seeds_of(*SPARKNET, finals=(0.60, 0.615, 0.625), seconds=59.95),
    )
    assert found.is_settled
    assert found.advice == "Train in one process (‘single’)."


def test_with_one_seed_nothing_is_advised() -> None:
    found = judge(seeds_of(finals=(0.6,)), seeds_of(*SPARKNET, finals=(0.7,)))
    assert not found.is_settled
    assert found.advice == "It is too early to choose."
    assert "too few runs to say: ‘sparknet" in finding(found, "Against one process")
    assert "no claim rests on them" in " ".join(caveats(gather(seeds_of(finals=(0.6,)))))


def test_what_diverges_is_not_advised() -> None:
    wild = [
        *seeds_of(*DEEPSPARK, finals=(0.80, 0.81, 0.82), seconds=10),
        make_row(*DEEPSPARK, seed=4, status="diverged", final=None),
    ]
    rows = [seeds_of(finals=(0.60, 0.61, 0.62)), seeds_of(*SPARKNET, finals=(0.5, 0.5, 0.5)), wild]
    found = judge(*rows)
    assert found.advice == "Train in one process (‘single’)."
    said = " ".join(caveats(gather([row for group in rows for row in group])))
    assert "Runs diverged with ‘deepspark" in said
    assert judge(wild).advice == "None of these can be advised."
    assert "10 %" in finding(judge(wild), "Exchanges")
    assert judge(wild[3:]).advice == "None of these can be advised."


def test_what_never_finished_is_in_the_table_and_named() -> None:
    lost = make_row(*DEEPSPARK, seed=1, status="diverged", final=None)
    comparison = gather([*seeds_of(finals=(0.6, 0.6, 0.7)), lost, make_failed("easgd", 2, 1, "x")])
    assert [row[:3] for row in results_table(comparison).rows[1:]] == [
        (lost["label"], "0 of 1", "diverged"),
        ("easgd, 2 workers", "0 of 1", "failed"),
    ]
    assert len({len(row) for row in results_table(comparison).rows}) == 1
    said = caveats(comparison)
    assert said[0] == "Missing from every figure, as failed: 1 run of ‘easgd, 2 workers’."
    assert said[1].startswith(f"Runs diverged with ‘{lost['label']}’.")


def test_no_run_gives_no_advice() -> None:
    assert judge([make_failed("single", 1, 1, "lost")]).advice == "Nothing to say yet."
    assert verdict(gather([])).findings == ()


def test_a_disturbed_comparison_makes_no_claim_on_time() -> None:
    rows = [
        seeds_of(finals=(0.60, 0.61, 0.62), seconds=60),
        seeds_of(*SPARKNET, finals=(0.60, 0.61, 0.62), seconds=30),
    ]
    for group in rows:
        for row in group:
            row["other_load"] = 0.3
    found = judge(*rows)
    assert found.advice == "Train in one process (‘single’)."
    assert finding(found, "Time").endswith(
        "These runs were disturbed. Not to be told from it by these runs: ‘single’."
    )


def test_caveats_follow_from_the_runs() -> None:
    rows = [
        *seeds_of(finals=(0.60, 0.61, 0.62)),
        *seeds_of("sync", 4, finals=(0.60, 0.61, 0.62)),
        {**make_row(*SPARKNET, seed=1, other_load=0.4), "machine": {"cores": 2, "system": "other"}},
        make_failed("easgd", 2, 1, "lost"),
    ]
    said = " ".join(caveats(gather(rows), ["easgd-2/seed2"]))
    for expected in (
        "Still to come, and able to change all of this: 1 run of 9.",
        "Missing from every figure, as failed: 1 run of ‘easgd, 2 workers’.",
        "The combinations have 1 to 3 seeds",
        "In 1 run (marked ⚠) other programs used more than 10 %",
        "The runs are of different machines",
        "Up to 4 workers shared 2 cores",
        "not the start of Spark (11 s on average)",
        "Every run saw 100,000 samples",
        "3 of 3 combinations still improved at the end",
        "3 combinations were compared",
    ):
        assert expected in said
    per_worker = [make_row(per_worker=True)]
    assert "Iterations count for each worker" in " ".join(caveats(gather(per_worker)))
    assert "all workers together" not in " ".join(caveats(gather(per_worker)))
    flat = [make_row(values=(0.1, 0.6, 0.6, 0.6, 0.6, 0.6))]
    assert "still improved" not in " ".join(caveats(gather(flat)))


def test_versions_differ_only_if_those_of_one_package_do() -> None:
    plain = make_row(versions={"torch": "2.13"})
    said = " ".join(caveats(gather([plain, make_row("sync", 2)])))
    assert "different versions" not in said
    said = " ".join(caveats(gather([plain, make_row("sync", 2, versions={"torch": "2.14"})])))
    assert "different versions" in said


def test_amounts_are_written_in_units_that_people_read() -> None:
    times = [seconds_text(seconds) for seconds in (4.21, 41.3, 725.0, 12_300.0)]
    assert times == ["4.2 s", "41 s", "12 min", "3.4 h"]
    amounts = [bytes_text(count) for count in (12, 58_000_000, 4.2e12)]
    assert amounts == ["12 B", "58 MB", "4,200 GB"]
