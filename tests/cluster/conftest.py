"""A real standalone Spark on loopback: one master, two workers of one core each."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pyspark.sql import SparkSession

from benchmarks.spark_standalone import Standalone, standalone
from tiny_task import write_data


def python_workers(cluster: Standalone, since: float) -> list[psutil.Process]:
    """Return the processes started `since` then that run tasks: forks of executors' daemons."""
    children = [psutil.Process(pid).children(recursive=True) for pid in cluster.workers]
    return [p for own in children for p in own if _runs_tasks(p, since)]


def _runs_tasks(process: psutil.Process, since: float) -> bool:
    try:
        family = (process, process.parent())
        is_forked = all(p is not None and "pyspark.daemon" in p.cmdline() for p in family)
        return is_forked and process.create_time() > since
    except psutil.NoSuchProcess:  # it has just ended
        return False


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with standalone(tmp_path_factory.mktemp("standalone")) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the tiny task's data."""
    write_data(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    """Return a session of the user's own, on two cores, whose driver has little room."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "FATAL",
        "spark.driver.maxResultSize": "1m",
        "spark.sql.shuffle.partitions": "3",
        "spark.executorEnv.PYTHONPATH": str(Path(__file__).parents[2]),
    }
    builder = SparkSession.builder.master("local[2,2]").appName("torrefy tests")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()
