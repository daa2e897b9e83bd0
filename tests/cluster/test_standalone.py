"""Runs on a real standalone master with two worker processes."""

import logging
import time
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks.spark_standalone import Standalone
from conftest import python_workers
from solvers import Action
from tiny_task import DROPOUT, Recorder, make_plan, run_plan
from trainer.errors import TrainerError
from trainer.plan import IN_PROCESS

pytestmark = pytest.mark.cluster


def test_sparknet_is_its_oracle(cluster: Standalone, folder: Path) -> None:
    real, oracle = (
        run_plan(make_plan("sparknet", 2, folder, max_iter=243, master=master), folder, DROPOUT)
        for master in (cluster.master, IN_PROCESS)
    )
    torch.testing.assert_close(real.parameters, oracle.parameters, rtol=0, atol=1e-6)
    torch.testing.assert_close(real.history[0], oracle.history[0], rtol=0, atol=1e-6)
    assert real.recorder.tests == oracle.recorder.tests
    assert real.result.samples == oracle.result.samples == 243 * 5


def test_deepspark_learns(cluster: Standalone, folder: Path) -> None:
    plan = make_plan("deepspark", 2, folder, max_iter=800, master=cluster.master)
    outcome = run_plan(plan, folder)
    assert outcome.result.iteration == 800
    losses = {rank: [] for rank in range(2)}
    for record in outcome.recorder.exchanges:
        losses[record["rank"]].append(record["loss"])
    assert all(len(own) == 40 and own[-1] < own[0] / 4 for own in losses.values())
    assert outcome.recorder.tests[-1][1] > 0.9 > outcome.recorder.tests[0][1]


class Killer:
    """A poll that kills one of the workers once training is under way."""

    def __init__(self, cluster: Standalone, recorder: Recorder) -> None:
        self._cluster, self._recorder = cluster, recorder
        self._since = time.time()
        self.killed: list[psutil.Process] = []

    def __call__(self) -> Action:
        if len(self._recorder.exchanges) >= 4 and not self.killed:
            found = python_workers(self._cluster, self._since)
            # All of one executor: that which trains, and those that Spark keeps from earlier.
            executors = [process.parent().ppid() for process in found]
            self.killed = [p for p, e in zip(found, executors, strict=True) if e == executors[0]]
            for process in self.killed:
                process.kill()
        return Action.NONE


def test_lost_asynchronous_worker_is_replaced_while_the_other_goes_on(
    cluster: Standalone, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "trainer")
    recorder = Recorder()
    killer = Killer(cluster, recorder)
    plan = make_plan("deepspark", 2, folder, max_iter=6000, sync_interval=2, master=cluster.master)
    outcome = run_plan(plan, folder, poll=killer, recorder=recorder, test_iter=[])
    assert killer.killed
    assert outcome.result.iteration == 6000
    assert not outcome.result.is_stopped_early
    assert any("attempt 2 goes on" in record.getMessage() for record in caplog.records)
    assert {record["worker_iteration"] for record in recorder.exchanges} >= {3000}


@pytest.mark.parametrize("strategy", ["sync", "sparknet", "easgd", "diloco"])
def test_synchronous_run_that_loses_a_worker_is_as_if_it_had_not(
    cluster: Standalone, folder: Path, strategy: str
) -> None:
    recorder = Recorder()
    killer = Killer(cluster, recorder)
    options = {} if strategy == "sync" else {"sync_interval": 3}
    plans = [
        make_plan(strategy, 2, folder, max_iter=1203, master=master, **options)
        for master in (cluster.master, IN_PROCESS)
    ]
    real = run_plan(plans[0], folder, DROPOUT, poll=killer, recorder=recorder, test_interval=400)
    oracle = run_plan(plans[1], folder, DROPOUT, test_interval=400)
    assert killer.killed
    lost = [event for event in recorder.events if event[0] == "lost"]
    assert len(lost) == 1
    assert "was lost: killed, or out of memory" in lost[0][2]["message"]
    torch.testing.assert_close(real.parameters, oracle.parameters, rtol=0, atol=1e-6)
    torch.testing.assert_close(real.history[0], oracle.history[0], rtol=0, atol=1e-6)
    assert real.recorder.tests == oracle.recorder.tests
    assert real.result.samples == oracle.result.samples == 1203 * 5


def test_too_few_executors_are_counted(cluster: Standalone, folder: Path) -> None:
    plan = make_plan("sparknet", 3, folder, master=cluster.master, start_timeout_s=5.0)
    with pytest.raises(TrainerError, match=r"3 workers of 1 core.* room for [0-2] after 5 s"):
        run_plan(plan, folder)
