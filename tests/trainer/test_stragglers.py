"""Workers that fall silent: named, ended and replaced, or done without."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from thread_cluster import ThreadCluster

from tiny_task import Recorder, make_plan, open_solver, run_plan, tiny_net, tiny_param
from trainer.coordinator import RunResult, run_distributed
from trainer.errors import LostWorkerError
from trainer.plan import IN_PROCESS, DistributedPlan


@pytest.fixture(autouse=True)
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers report often, so that those are told apart that do not."""
    monkeypatch.setattr("trainer.heartbeat._BEAT_S", 0.1)


def never(rank: int, attempt: int, exchanges: int) -> bool:
    return False


def once(rank: int, attempt: int, exchanges: int) -> bool:
    """Freeze worker 1 at its fifth exchange, in its first attempt."""
    return (rank, attempt, exchanges) == (1, 1, 5)


def slowly(rank: int, attempt: int, exchanges: int) -> bool:
    """Do that, and have worker 0 not have done its own share before that is noticed."""
    time.sleep(0.015 if rank == 0 else 0)
    return once(rank, attempt, exchanges)


def train(
    plan: DistributedPlan, folder: Path, cluster: ThreadCluster, **settings: Any
) -> tuple[RunResult, Recorder, torch.Tensor]:
    param = tiny_param(folder, **({"max_iter": plan.max_iter, "test_iter": []} | settings))
    net = tiny_net()
    solver, recorder = open_solver(folder, param, net), Recorder()
    try:
        result = run_distributed(solver, plan, observer=recorder, net=net, cluster=cluster)
        return result, recorder, solver.net.flat.data.clone()
    finally:
        solver.close()


def plan_of(strategy: str, folder: Path, **settings: Any) -> DistributedPlan:
    defaults = {"max_iter": 120, "master": IN_PROCESS, "straggler_s": 2.0, "wait_timeout_s": 60.0}
    return make_plan(strategy, 2, folder, **(defaults | settings))


def test_silent_worker_is_ended_and_another_goes_on(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "trainer")
    plan = plan_of("deepspark", folder, sync_interval=3, replaces_stragglers=True)
    cluster = ThreadCluster(once)
    result, recorder, parameters = train(plan, folder, cluster)
    assert (result.iteration, result.is_stopped_early) == (120, False)
    assert cluster.ended_workers == [1]
    assert [worker.attempts for worker in result.workers] == [1, 2]
    (begin, straggler) = recorder.events
    assert begin == ("begin", 0, {})
    assert (straggler[0], straggler[2]["rank"]) == ("straggler", 1)
    assert straggler[2].keys() == {"rank", "host", "silent_s"}  # a record has seconds of its own
    assert straggler[2]["silent_s"] >= 2
    assert "No word from worker 1 on " in caplog.text
    assert "attempt 2 goes on from its iteration 15 on" in caplog.text
    assert parameters.isfinite().all()


@pytest.mark.slow
def test_share_of_one_that_is_not_replaced_is_done_by_the_other(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "trainer")

    plan = plan_of("deepspark", folder, sync_interval=1, max_iter=600, start_timeout_s=0.3)
    plan = replace(plan, replaces_stragglers=True)
    result, recorder, _ = train(plan, folder, ThreadCluster(slowly, replaces=False))
    assert [what for what, _, _ in recorder.events] == ["begin", "straggler", "dropped"]
    assert (result.iteration, result.is_stopped_early) == (600, False)
    assert [worker.iterations for worker in result.workers] == [595, 5]
    assert "is dropped at its iteration 5: 295 iterations are left to 1 others" in caplog.text


@pytest.mark.slow
def test_one_that_is_awaited_for_too_long_is_done_without_before_the_run_is_given_up(
    folder: Path,
) -> None:
    waits = {"wait_timeout_s": 2.1, "start_timeout_s": 1.0, "replaces_stragglers": True}
    plan = plan_of("deepspark", folder, sync_interval=1, max_iter=600, **waits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.submission._GRACE_S", 0.0)
        result, recorder, _ = train(plan, folder, ThreadCluster(slowly, replaces=False))
    assert [what for what, _, _ in recorder.events] == ["begin", "straggler", "dropped"]
    assert (result.iteration, result.is_stopped_early) == (600, False)


def test_without_the_option_it_is_named_and_may_come_back(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "trainer")
    plan = plan_of("deepspark", folder, sync_interval=3, wait_timeout_s=0.01)
    cluster = ThreadCluster(once)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.submission._GRACE_S", 4.0)
        with pytest.raises(Exception, match=r"no word from worker 1 on .* for 4.01 s"):
            train(plan, folder, cluster)
    assert cluster.ended_workers == []
    assert caplog.text.count("No word from worker 1") == 1


@pytest.mark.parametrize("strategy", ["sparknet", "sync", "easgd"])
def test_synchronous_run_drops_a_silent_worker_and_ends_as_one_without(
    folder: Path, strategy: str
) -> None:
    options = {} if strategy == "sync" else {"sync_interval": 3}
    plan = plan_of(strategy, folder, replaces_stragglers=True, **options)
    seen: list[int] = []

    def first_time(rank: int, attempt: int, exchanges: int) -> bool:
        is_now = rank == 1 and exchanges == 9 and not seen
        seen.extend([exchanges] if is_now else [])
        return is_now

    cluster = ThreadCluster(first_time)
    result, recorder, parameters = train(plan, folder, cluster)
    _, _, undisturbed = train(plan, folder, ThreadCluster(never))
    assert cluster.submissions == 2
    assert [what for what, _, _ in recorder.events] == ["begin", "straggler", "lost"]
    assert (result.iteration, result.samples) == (120, 600)
    assert torch.equal(parameters, undisturbed)
    assert [worker.attempts for worker in result.workers] == [2, 2]


class SlowToStart(ThreadCluster):
    """Takes longer to start workers than they may be silent."""

    def run(self, *args: Any, **kwargs: Any) -> None:
        time.sleep(2.6)
        super().run(*args, **kwargs)


@pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])
def test_worker_that_is_yet_to_start_is_not_silent(folder: Path, strategy: str) -> None:
    plan = plan_of(strategy, folder, wait_timeout_s=2.0, replaces_stragglers=True)
    cluster = SlowToStart(never)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.submission._GRACE_S", 0.0)
        result, recorder, _ = train(plan, folder, cluster)
    assert (cluster.submissions, cluster.ended_workers) == (1, [])
    assert [what for what, _, _ in recorder.events] == ["begin"]
    assert (result.iteration, result.is_stopped_early) == (120, False)


def test_run_that_does_not_get_further_is_given_up(folder: Path) -> None:
    plan = plan_of("sparknet", folder, replaces_stragglers=True, task_attempts=2)
    cluster = ThreadCluster(lambda rank, attempt, exchanges: rank == 1)
    with pytest.raises(LostWorkerError, match=r"worker 1 on .* is silent, and was dropped"):
        train(plan, folder, cluster)
    assert cluster.submissions == 2


def test_averages_over_tls_or_not_are_those_of_turns(folder: Path) -> None:
    plan = plan_of("sparknet", folder, sync_interval=7)
    _, _, threads = train(plan, folder, ThreadCluster(never))
    turns = run_plan(make_plan("sparknet", 2, folder, sync_interval=7, max_iter=120), folder)
    assert torch.equal(threads, turns.parameters)
