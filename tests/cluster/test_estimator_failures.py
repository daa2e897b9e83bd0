"""A fit whose workers are killed on the way."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from frames import estimator, image_frame
from pyspark.sql import SparkSession

from trainer.cluster.dataframe.summary import LossHistory

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])
def test_a_fit_goes_on_when_its_workers_are_killed(
    spark: SparkSession, tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = image_frame(spark).repartition(2).cache()
    frame.count()
    killed: list[int] = []
    keep = LossHistory.on_exchange

    def kill_once(history: LossHistory, record: Mapping[str, Any]) -> None:
        keep(history, record)
        if len(history.losses) >= 6 and not killed:
            for process in task_processes():
                killed.append(process.pid)
                process.kill()

    monkeypatch.setattr(LossHistory, "on_exchange", kill_once)
    settings = {"strategy": strategy, "strategy_params": {"sync_interval": 3}, "max_iter": 3000}
    model = estimator(tmp_path, **settings).fit(frame)
    assert killed
    summary = model.summary
    assert summary is not None
    assert (summary.iterations, summary.samples) == (3000, 15000)
    assert sum(worker.attempts for worker in summary.workers) > 2
    assert summary.loss_history[-1][1] < summary.loss_history[0][1] / 4


def task_processes() -> list[psutil.Process]:
    """Return what Spark of this process runs tasks in: forks of its Python daemon."""
    children = [p for p in psutil.Process().children(recursive=True) if is_daemon(p)]
    daemons = {process.pid for process in children}
    return [process for process in children if process.ppid() in daemons]


def is_daemon(process: psutil.Process) -> bool:
    try:
        return "pyspark.daemon" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False
