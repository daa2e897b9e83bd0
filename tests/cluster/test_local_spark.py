"""Runs on `local[K]`: what goes wrong is said in one message, and what is asked for is done."""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
from pyspark import SparkConf, SparkContext

from prototxt_parser.proto import caffe_pb2
from solvers import Action
from tiny_task import Recorder, make_plan, run_plan
from trainer.errors import TrainerError

pytestmark = pytest.mark.cluster


@pytest.fixture
def context() -> Iterator[SparkContext]:
    """Return a Spark context of the user's own."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    conf = SparkConf().setMaster("local[2]").setAppName("own")
    conf.set("spark.ui.enabled", "false").set("spark.log.level", "FATAL")
    with SparkContext(conf=conf) as context:
        yield context


def damage_entry(folder: Path, entry: int) -> None:
    with lmdb.open(str(folder / "train_lmdb"), lock=False) as env, env.begin(write=True) as txn:
        txn.put(f"{entry:05d}".encode(), caffe_pb2.Datum(channels=9, data=b"x").SerializeToString())


@pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])
def test_worker_that_fails_is_named_in_its_own_words(folder: Path, strategy: str) -> None:
    damage_entry(folder, 55)
    plan = make_plan(strategy, 2, folder, max_iter=10**5, master=None, sync_interval=2)
    with pytest.raises(TrainerError, match=r"^worker 1 on .*train_lmdb, key b'00055'") as caught:
        run_plan(plan, folder, test_iter=[])
    assert "at org.apache" not in str(caught.value)


@pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])
def test_stop_ends_workers_in_other_processes(folder: Path, strategy: str) -> None:
    recorder = Recorder()
    plan = make_plan(strategy, 2, folder, max_iter=10**7, master=None)

    def poll() -> Action:
        return Action.STOP if recorder.exchanges else Action.NONE

    outcome = run_plan(plan, folder, poll=poll, recorder=recorder, test_iter=[])
    assert outcome.result.is_stopped_early
    assert 0 < outcome.result.iteration < 10**7
    assert (folder / f"tiny_iter_{outcome.result.iteration}.caffemodel").exists()


def test_error_in_the_driver_cancels_the_stage(folder: Path) -> None:
    plan = make_plan("deepspark", 2, folder, max_iter=10**7, master=None)
    recorder = Recorder()

    def poll() -> Action:
        if recorder.exchanges:
            raise KeyboardInterrupt
        return Action.NONE

    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, folder, poll=poll, recorder=recorder, test_iter=[])
    assert not [thread for thread in threading.enumerate() if thread.name == "cluster"]


def test_port_in_use_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        plan = make_plan("deepspark", 2, folder, master=None, port=port)
        with pytest.raises(TrainerError, match=rf"listen on 127.0.0.1:{port} .*another port"):
            run_plan(plan, folder)


def test_too_few_local_cores_are_counted(folder: Path) -> None:
    plan = make_plan("sparknet", 3, folder, master="local[5]", threads=2)
    with pytest.raises(TrainerError, match=r"3 workers of 2 core.* room for 2: .*6 cores"):
        run_plan(plan, folder)


def test_a_context_of_the_users_is_used_and_left_open(context: SparkContext, folder: Path) -> None:
    outcome = run_plan(make_plan("sparknet", 2, folder, master=None), folder)
    assert outcome.result.iteration == 40
    jobs = context._jsc.sc().statusStore().jobsList(None)
    described = [jobs.apply(number).description() for number in range(jobs.size())]
    whole = "torrefy: tiny, sparknet with 2 workers, iterations 0 to 40, 2 rounds"
    assert whole in [text.get() for text in described if text.isDefined()]
    assert context.parallelize(range(3)).sum() == 3
    with pytest.raises(TrainerError, match=r"runs Spark on local\[2\] already"):
        run_plan(make_plan("sparknet", 2, folder, master="local[7]"), folder)


def test_dynamic_allocation_is_refused_with_the_setting(
    context: SparkContext, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = context.getConf().set("spark.dynamicAllocation.enabled", "true")
    monkeypatch.setattr(SparkContext, "getConf", lambda self: conf)
    with pytest.raises(TrainerError, match=r"set spark\.dynamicAllocation\.enabled to false"):
        run_plan(make_plan("sparknet", 2, folder, master=None), folder)
