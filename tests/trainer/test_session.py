"""Why Spark cannot start, found out before Java is; its settings."""

import gc
import logging
import os
import socket
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest
from pyspark import SparkConf, SparkContext

from tiny_task import make_plan
from trainer.cli import train_main
from trainer.cluster import open_cluster, session
from trainer.cluster.session import open_context
from trainer.cluster.settings import check, complete, spark_master
from trainer.commands.flags import spark_setting
from trainer.errors import TrainerError
from trainer.plan import DistributedPlan


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the environment, and any Java process of other tests, out of these."""
    for name in ("SPARK_LOCAL_IP", "PYSPARK_PYTHON", "JAVA_HOME"):
        monkeypatch.setenv(name, "set, so that it is put back")
        monkeypatch.delenv(name)
    monkeypatch.setattr(SparkContext, "_gateway", None)
    monkeypatch.setattr(SparkContext, "_jvm", None)


def java(folder: Path, script: str) -> Path:
    program = folder / "bin" / "java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("master", "expected"),
    [
        (None, "local[6,1000]"),
        ("local", "local[1,1000]"),
        ("local[3]", "local[3,1000]"),
        ("local[*]", "local[*,1000]"),
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


def test_the_master_of_spark_submit_is_taken(tmp_path: Path) -> None:
    plan = make_plan("deepspark", 2, tmp_path, master=None)
    assert spark_master(plan, "yarn") == "yarn"
    assert spark_master(make_plan("deepspark", 2, tmp_path, master="yarn"), "yarn") == "yarn"
    with pytest.raises(TrainerError, match=r"given the master yarn, and the run local\[2\]"):
        spark_master(make_plan("deepspark", 2, tmp_path, master="local[2]"), "yarn")


def completed(plan: DistributedPlan, master: str, **given: str) -> SparkConf:
    conf = SparkConf(loadDefaults=False)
    conf.setAll([(f"spark.{name.replace('_', '.')}", value) for name, value in given.items()])
    complete(conf, plan, master)
    return conf


def test_settings_that_nobody_made_are_made(tmp_path: Path) -> None:
    conf = completed(make_plan("sparknet", 2, tmp_path, threads=3), "spark://host:7077")
    assert conf.get("spark.master") == "spark://host:7077"
    assert conf.get("spark.cores.max") == "6"
    assert conf.get("spark.task.cpus") == "3"
    assert conf.get("spark.task.maxFailures") == "1000"
    assert conf.get("spark.ui.enabled") is None
    assert conf.get("spark.executorEnv.PYTHONPATH") is None


def test_local_workers_find_a_checkout_and_have_no_page(tmp_path: Path) -> None:
    conf = completed(make_plan("sparknet", 2, tmp_path), "local[2]")
    assert Path(conf.get("spark.executorEnv.PYTHONPATH"), "trainer", "worker.py").is_file()
    assert conf.get("spark.ui.enabled") == "false"


def test_settings_of_the_user_stay(tmp_path: Path) -> None:
    plan = make_plan("sparknet", 2, tmp_path, spark_conf=(("spark.cores.max", "9"),))
    given = {"task_maxFailures": "7", "ui_enabled": "true", "network_timeout": "300s"}
    conf = completed(plan, "spark://host:7077", cores_max="5", **given)
    assert conf.get("spark.cores.max") == "9"
    assert conf.get("spark.task.maxFailures") == "7"
    assert conf.get("spark.ui.enabled") == "true"
    assert conf.get("spark.network.timeout") == "300s"


@pytest.mark.parametrize("master", ["yarn", "k8s://https://host:6443"])
@pytest.mark.parametrize(("given", "expected"), [({}, "5"), ({"executor_cores": "4"}, "3")])
def test_executors_are_as_many_as_the_workers_need(
    tmp_path: Path, master: str, given: dict[str, str], expected: str
) -> None:
    conf = completed(make_plan("sparknet", 5, tmp_path, threads=2), master, **given)
    assert conf.get("spark.executor.instances") == expected
    assert conf.get("spark.executor.cores") == given.get("executor_cores", "2")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "spark.dynamicAllocation.enabled",
            "true",
            r"set spark\.dynamicAllocation\.enabled to fal",
        ),
        (
            "spark.excludeOnFailure.enabled",
            "true",
            r"set spark\.excludeOnFailure\.enabled to false",
        ),
        ("spark.task.cpus", "2", r"uses 3 threads, and spark\.task\.cpus gives it 2 core"),
    ],
)
def test_settings_that_cannot_be_are_named(
    tmp_path: Path, name: str, value: str, message: str
) -> None:
    plan = make_plan("deepspark", 2, tmp_path, threads=3, spark_conf=((name, value),))
    conf = completed(plan, "spark://host:7077")
    with pytest.raises(TrainerError, match=message):
        check(conf, plan)


@pytest.mark.parametrize("text", ["spark.x", "x=y", "=", "--master=yarn"])
def test_a_setting_has_a_name_of_sparks_and_a_value(text: str) -> None:
    assert spark_setting("spark.x.y=a=b") == ("spark.x.y", "a=b")
    with pytest.raises(ArgumentTypeError, match=r"expected spark\.NAME=VALUE"):
        spark_setting(text)


def test_settings_of_spark_need_spark(capsys: pytest.CaptureFixture[str]) -> None:
    net = ["--net", "cifar10_quick.prototxt", "--conf", "spark.x=y", "--dry-run"]
    for words in (net, [*net, "--workers", "2", "--master", "in-process"]):
        assert train_main(words) == 2
        assert "--conf sets Spark" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("encryption", "host", "authenticate", "expected"),
    [
        ("auto", "10.0.0.7", "false", True),
        ("auto", "10.0.0.7", "true", False),
        ("auto", "127.0.0.1", "false", False),
        ("on", "localhost", "false", True),
        ("off", "10.0.0.7", "false", False),
    ],
)
def test_keys_in_the_clear_are_warned_of(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    encryption: str,
    host: str,
    authenticate: str,
    expected: bool,
) -> None:
    plan = make_plan("deepspark", 2, tmp_path, encryption=encryption)
    conf = completed(plan, "spark://host:7077", driver_host=host, authenticate=authenticate)
    with caplog.at_level(logging.WARNING, "trainer"):
        session._warn_of_plain_rpc(conf, plan)
    assert [("spark.authenticate is off" in text) for text in caplog.messages] == [True] * expected
