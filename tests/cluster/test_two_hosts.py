"""Runs over several hosts, which are network namespaces: encrypted, and through a cut link."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hosts import SparkHosts, spark_hosts, why_not

from prototxt_parser.text import print_text
from tiny_task import tiny_net, tiny_param

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
CUT_S = 15.0


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkHosts]:
    if reason := why_not():
        pytest.skip(reason)
    with spark_hosts(tmp_path_factory.mktemp("hosts")) as running:
        yield running


@contextmanager
def training(
    spark: SparkHosts, folder: Path, *words: str, **settings: Any
) -> Iterator[subprocess.Popen[str]]:
    """Run `train` on the driver's host; it ends with the context, if not before."""
    (folder / "net.prototxt").write_text(print_text(tiny_net().param))
    (folder / "solver.prototxt").write_text(print_text(tiny_param(folder, **settings)))
    code = "import sys; from trainer.cli import train_main; sys.exit(train_main())"
    files = ("--net", "net.prototxt", "--solver", "solver.prototxt", "--data", str(folder))
    place = ("--workers", "2", "--master", spark.master, "--verbose", "--out", str(folder / "out"))
    command = [*spark.driver.prefix, sys.executable, "-c", code, *files, *place, *words]
    own = {"SPARK_LOCAL_IP": spark.driver.address, "PYTHONPATH": str(ROOT)}
    with (folder / "driver.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | own, stdout=log, stderr=log, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait(timeout=30)


def exchanges(folder: Path) -> list[Mapping[str, Any]]:
    """Return what the run's metrics say of exchanges, as far as they are written."""
    path = folder / "out" / "tiny_metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    return [r for line in whole.splitlines() if (r := json.loads(line))["kind"] == "exchange"]


def log_of(folder: Path) -> str:
    return (folder / "driver.log").read_text()


def wait_for_both(process: subprocess.Popen[str], folder: Path) -> None:
    deadline = time.monotonic() + 240
    while {record["rank"] for record in exchanges(folder)} != {0, 1}:
        assert time.monotonic() < deadline, log_of(folder)
        assert process.poll() is None, log_of(folder)
        time.sleep(0.2)


def iterations(records: list[Mapping[str, Any]], rank: int) -> list[int]:
    return [record["worker_iteration"] for record in records if record["rank"] == rank]


@pytest.mark.parametrize("strategy", ["deepspark", "sparknet"])
def test_workers_on_two_hosts_train_encrypted(
    spark: SparkHosts, folder: Path, strategy: str
) -> None:
    with training(spark, folder, "--strategy", strategy, "--sync-interval", "5") as process:
        assert process.wait(timeout=400) == 0, log_of(folder)
    assert (folder / "out" / "tiny_iter_40.caffemodel").exists()
    assert {record["rank"] for record in exchanges(folder)} == {0, 1}
    # The keys are worth a warning only where there are any.
    assert "spark.authenticate is off" in log_of(folder)


def test_a_cut_link_is_waited_out(spark: SparkHosts, folder: Path) -> None:
    words = ("--strategy", "deepspark", "--sync-interval", "5")
    settings = {"max_iter": 12000, "test_interval": 6000, "base_lr": 1e-7}
    with training(spark, folder, *words, **settings) as process:
        wait_for_both(process, folder)
        spark.workers[0].cut()
        before = len(exchanges(folder))
        time.sleep(CUT_S)
        meanwhile = exchanges(folder)[before:]
        spark.workers[0].heal()
        assert process.wait(timeout=400) == 0, log_of(folder)
    assert (folder / "out" / "tiny_iter_12000.caffemodel").exists()
    records = exchanges(folder)
    for rank in range(2):
        own = iterations(records, rank)
        assert own == sorted(own)
        assert own[-1] == 6000
    # One went on, the other could not.
    assert len(meanwhile) > 20
    late = [sum(record["rank"] == rank for record in meanwhile[-20:]) for rank in range(2)]
    assert sorted(late) == [0, 20], late
