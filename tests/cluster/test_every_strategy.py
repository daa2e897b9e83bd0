"""What is promised of every strategy, on a real master: it trains over TLS and survives losses."""

import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.spark_standalone import Standalone
from conftest import python_workers
from solvers import Action
from tiny_task import Recorder, make_plan, run_plan
from trainer.strategies import strategy_names

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

OPTIONS: dict[str, dict[str, Any]] = {
    "diloco": {"sync_interval": 10, "outer_lr": 0.7, "outer_momentum": 0.5},
    "downpour": {"n_push": 3, "n_fetch": 2},
    "deepspark": {"sync_interval": 3, "moving_rate": 0.3},
    "easgd": {"sync_interval": 3},
    "sparknet": {"sync_interval": 3},
    "asysg": {"max_staleness": 4},
}
CASES = [(name, OPTIONS.get(name, {})) for name in strategy_names()]
CASES.append(("easgd", {"sync_interval": 3, "asynchronous": True}))


class Losses:
    """A poll that kills a worker's process, and later the executor of one.

    Each comes when the run has got further since it began or since the loss before.
    """

    def __init__(self, cluster: Standalone, recorder: Recorder) -> None:
        self._cluster, self._recorder, self._since = cluster, recorder, time.time()
        self._next = 4
        self.killed: list[str] = []

    def __call__(self) -> Action:
        if len(self._recorder.exchanges) >= self._next and len(self.killed) < 2:
            found = python_workers(self._cluster, self._since)
            if found:
                self._kill(found)
                self._next = len(self._recorder.exchanges) + 20
        return Action.NONE

    def _kill(self, found: list[psutil.Process]) -> None:
        executor = found[0].parent().parent()  # above the daemon that forks Python workers
        if not self.killed:
            self.killed.append("worker")
            for process in found:
                if process.parent().ppid() == executor.pid:
                    process.kill()
        else:
            self.killed.append("executor")
            executor.kill()


@pytest.mark.parametrize(("strategy", "options"), CASES)
def test_it_learns_over_tls_though_a_worker_and_an_executor_are_killed(
    cluster: Standalone, folder: Path, strategy: str, options: dict[str, Any]
) -> None:
    recorder = Recorder()
    losses = Losses(cluster, recorder)
    plan = make_plan(
        strategy,
        2,
        folder,
        max_iter=4000,
        master=cluster.master,
        encryption="on",
        wait_timeout_s=120.0,
        **options,
    )
    settings = {"momentum": 0.5, "base_lr": 0.00003, "test_interval": 1000}
    outcome = run_plan(plan, folder, poll=losses, recorder=recorder, **settings)
    assert losses.killed == ["worker", "executor"]
    assert (outcome.result.iteration, outcome.result.is_stopped_early) == (4000, False)
    assert outcome.result.samples == 4000 * 5
    assert sum(worker.attempts for worker in outcome.result.workers) >= 3
    assert outcome.parameters.isfinite().all()
    assert outcome.recorder.tests[-1][1] > 0.8 > outcome.recorder.tests[0][1]
