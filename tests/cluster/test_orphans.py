"""No worker outlives the process by which Spark would end it, not even one that is stopped."""

import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from chaos import TOKEN, by_role, processes
from solvers import Action
from tiny_task import Recorder, make_plan, run_plan
from trainer.plan import DistributedPlan

pytestmark = pytest.mark.cluster


def alive(victims: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that are there after a while."""
    deadline = time.monotonic() + 10
    while any(map(psutil.Process.is_running, victims)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [victim for victim in victims if victim.is_running()]


def spark_plan(folder: Path, max_iter: int) -> DistributedPlan:
    """Return a run whose processes `processes` finds."""
    return make_plan(
        "deepspark",
        2,
        folder,
        max_iter=max_iter,
        master=None,
        sync_interval=2,
        spark_conf=((f"spark.executorEnv.{TOKEN}", str(folder)),),
    )


def test_worker_that_is_stopped_ends_with_its_daemon(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, str(folder))
    recorder, victims = Recorder(), []

    def poll() -> Action:
        # Both train: one that still imports is in the other test.
        if {record["rank"] for record in recorder.exchanges} == {0, 1} and not victims:
            roles = by_role(processes(str(folder)))
            victims.extend(process for group in roles["worker"] for process in group)
            for (daemon,) in roles["daemon"]:
                daemon.kill()
            with suppress(psutil.NoSuchProcess):
                victims[0].suspend()
        return Action.NONE

    plan = spark_plan(folder, max_iter=4000)
    outcome = run_plan(plan, folder, poll=poll, recorder=recorder, test_iter=[])
    assert outcome.result.iteration == 4000
    assert victims
    assert not alive(victims)


def test_worker_that_still_imports_ends_with_its_daemon(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, str(folder))
    recorder = Recorder()
    victims: list[psutil.Process] = []
    left: list[list[psutil.Process]] = []

    def poll() -> Action:
        roles = by_role(processes(str(folder)))
        if not victims and "worker" in roles:
            for (daemon,) in roles["daemon"]:
                victims.extend(daemon.children())
                daemon.kill()
        # Others train, so those have been given up; the run goes on.
        if {record["rank"] for record in recorder.exchanges} == {0, 1} and not left:
            left.append(alive(victims))
        return Action.NONE

    plan = spark_plan(folder, max_iter=1000)
    outcome = run_plan(plan, folder, poll=poll, recorder=recorder, test_iter=[])
    assert outcome.result.iteration == 1000
    assert victims
    assert left == [[]]
