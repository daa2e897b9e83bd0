"""No worker outlives the process by which Spark would end it, not even one that is stopped."""

import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from chaos import TOKEN, by_role, processes
from solvers import Action
from tiny_task import Recorder, make_plan, run_plan

pytestmark = pytest.mark.cluster


def test_worker_that_is_stopped_ends_with_its_daemon(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, str(folder))
    recorder, victims = Recorder(), []

    def poll() -> Action:
        # Both train: one whose Python still imports has not yet bound itself to its parent.
        if {record["rank"] for record in recorder.exchanges} == {0, 1} and not victims:
            roles = by_role(processes(str(folder)))
            victims.extend(process for group in roles["worker"] for process in group)
            for (daemon,) in roles["daemon"]:
                daemon.kill()
            with suppress(psutil.NoSuchProcess):
                victims[0].suspend()
        return Action.NONE

    plan = make_plan(
        "deepspark",
        2,
        folder,
        max_iter=4000,
        master=None,
        sync_interval=2,
        spark_conf=((f"spark.executorEnv.{TOKEN}", str(folder)),),
    )
    outcome = run_plan(plan, folder, poll=poll, recorder=recorder, test_iter=[])
    assert outcome.result.iteration == 4000
    assert victims
    deadline = time.monotonic() + 10
    while any(map(psutil.Process.is_running, victims)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [victim for victim in victims if victim.is_running()]
