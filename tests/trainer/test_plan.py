"""How a run is shared out and where its milestones lie."""

from typing import Any

import pytest

from trainer.errors import UsageError
from trainer.plan import DistributedPlan, Milestones
from trainer.strategies import AsysgOptions, SparkNetOptions


def plan(workers: int, **settings: Any) -> DistributedPlan:
    return DistributedPlan(
        "sparknet", SparkNetOptions(sync_interval=10), workers, **({"max_iter": 100} | settings)
    )


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("iteration", [0, 1, 20, 41, 100])
def test_shares_of_all_workers_make_up_the_iteration(workers: int, iteration: int) -> None:
    shares = [plan(workers).share(rank, iteration) for rank in range(workers)]
    assert sum(shares) == iteration
    assert max(shares) - min(shares) <= 1
    assert plan(workers).progress(sum(shares)) == iteration


def test_per_worker_gives_every_worker_all_iterations() -> None:
    p = plan(3, per_worker=True)
    assert p.worker_iterations == (100, 100, 100)
    assert p.progress(300) == 100
    assert (p.lr_stride, plan(3).lr_stride) == (1, 3)


@pytest.mark.parametrize(
    ("workers", "start", "iterations", "rounds"),
    [(1, 0, (100,), 10), (3, 0, (34, 33, 33), 4), (2, 41, (29, 30), 3), (2, 100, (0, 0), 0)],
)
def test_iterations_and_rounds(
    workers: int, start: int, iterations: tuple[int, ...], rounds: int
) -> None:
    p = plan(workers, start_iteration=start)
    assert p.worker_iterations == iterations
    assert p.rounds == rounds


@pytest.mark.parametrize(
    ("before", "after", "test", "snapshot"),
    [
        (0, 9, False, False),
        (0, 10, True, False),
        (10, 19, False, False),
        (19, 21, True, False),
        (21, 45, True, True),
        (30, 30, False, False),
    ],
)
def test_milestones_count_when_reached_or_passed(
    before: int, after: int, test: bool, snapshot: bool
) -> None:
    milestones = Milestones(test_interval=10, snapshot=30)
    assert milestones.is_test(before, after) is test
    assert milestones.is_snapshot(before, after) is snapshot
    assert milestones.is_any(before, after) is (test or snapshot)
    assert not Milestones(0, 0).is_any(before, after)


def test_rounds_follow_the_schedule() -> None:
    options = SparkNetOptions(sync_interval=10, post_local=5)
    assert DistributedPlan("sparknet", options, 2, max_iter=100).rounds == 5 + 5


def test_a_plan_checks_its_options_against_its_workers() -> None:
    with pytest.raises(UsageError, match="max_staleness: expected 3 or more with 4 workers"):
        DistributedPlan("asysg", AsysgOptions(max_staleness=2), 4, max_iter=100)


@pytest.mark.parametrize(
    "settings",
    [{"threads": 0}, {"port": 65536}, {"wait_timeout_s": 0}, {"task_attempts": 0}],
)
def test_plans_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(settings))}: expected .*; received"):
        plan(2, **settings)


def test_a_plan_needs_a_worker() -> None:
    with pytest.raises(UsageError, match="num_workers: expected 1 or more; received 0"):
        plan(0)


def test_the_rate_alone_may_follow_each_worker() -> None:
    assert plan(3).lr_stride == 3
    p = plan(3, lr_per_worker=True)
    assert (p.lr_stride, p.stride) == (1, 3)
    assert sum(p.worker_iterations) == p.max_iter
