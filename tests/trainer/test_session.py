"""Why Spark cannot start, found out before Java is."""

import gc
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from pyspark import SparkContext

from tiny_task import make_plan
from trainer.cluster import open_cluster, session
from trainer.cluster.session import open_context, spark_master
from trainer.errors import TrainerError


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the environment, and any Java process of other tests, out of these."""
    for name in ("SPARK_LOCAL_IP", "PYSPARK_PYTHON", "JAVA_HOME"):
        monkeypatch.setenv(name, "set, so that it is put back")
        monkeypatch.delenv(name)
    monkeypatch.setattr(SparkContext, "_gateway", None)


def java(folder: Path, script: str) -> Path:
    program = folder / "bin" / "java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("master", "expected"),
    [
        (None, "local[6,4]"),
        ("local", "local[1,4]"),
        ("local[3]", "local[3,4]"),
        ("local[*]", "local[*,4]"),
        ("local[3,7]", "local[3,7]"),
        ("spark://host:7077", "spark://host:7077"),
    ],
)
def test_local_masters_retry_tasks(tmp_path: Path, master: str | None, expected: str) -> None:
    assert spark_master(make_plan("deepspark", 3, tmp_path, master=master, threads=2)) == expected


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [("PATH", "", "no java on the PATH"), ("JAVA_HOME", "/nowhere", "JAVA_HOME is /nowhere")],
)
def test_missing_java_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(TrainerError, match=f"Spark needs Java 17 or later: {message}"):
        open_context(make_plan("sparknet", 2, tmp_path, master=None))


# pyspark forgets the pipe to a Java process that does not start.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_java_that_is_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = java(tmp_path, "echo 'openjdk version \"11.0.1\"' >&2; exit 1")
    monkeypatch.setenv("JAVA_HOME", str(old))
    with pytest.raises(TrainerError, match=r'needs Java 17 or later, and .*version "11\.0\.1"'):
        open_context(make_plan("sparknet", 2, tmp_path, master=None))
    gc.collect()


def test_host_without_an_address_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setenv("JAVA_HOME", str(java(tmp_path, "exit 1")))
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    plan = make_plan("sparknet", 2, tmp_path, master="spark://elsewhere:7077")
    with pytest.raises(TrainerError, match=rf"{socket.gethostname()} has no address.*SPARK_LOCAL"):
        open_context(plan)


@pytest.mark.parametrize("port", ["1", "x"])
def test_master_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(java(tmp_path, "exit 1")))
    plan = make_plan("sparknet", 2, tmp_path, master=f"spark://127.0.0.1:{port}")
    with pytest.raises(TrainerError, match=rf"no Spark master answers at spark://127.0.0.1:{port}"):
        open_context(plan)
    assert os.environ["SPARK_LOCAL_IP"] == "127.0.0.1"


def test_missing_spark_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trainer.cluster.spark", None)
    with pytest.raises(TrainerError, match=r"pip install 'torrefy\[spark\]'"):
        open_cluster(make_plan("sparknet", 2, tmp_path, master=None))


def test_executors_find_a_checkout(tmp_path: Path) -> None:
    conf = session._settings(make_plan("sparknet", 2, tmp_path, threads=3), "spark://host:7077")
    assert Path(conf.get("spark.executorEnv.PYTHONPATH"), "trainer", "worker.py").is_file()
    assert conf.get("spark.cores.max") == "6"
    assert conf.get("spark.task.cpus") == "3"
