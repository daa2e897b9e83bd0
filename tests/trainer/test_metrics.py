"""What a run writes into its metrics file beside its curves: how it was set up, when it began."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from tiny_runs import WORKERS, metrics, train, write_task


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path)
    return tmp_path


def test_first_record_says_how_one_process_was_set_up(task: Path) -> None:
    train()
    start = metrics(task)[0]
    age = datetime.now(UTC) - datetime.fromisoformat(start.pop("started"))
    assert timedelta(0) <= age < timedelta(hours=1)
    assert 0 <= start.pop("seconds") < 60
    versions = start.pop("versions")
    assert versions.keys() == {"python", "torch", "torrefy"}
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert start == {
        "kind": "start", "iteration": 0, "samples": 0, "net": "tiny", "strategy": "single",
        "workers": 1, "max_iter": 40, "batch": 5, "per_worker": False, "options": {}, "seed": 5,
        "device": "cpu",
    }  # fmt: skip


def test_first_record_says_how_workers_were_set_up(task: Path) -> None:
    train(*WORKERS, "easgd", "--sync-interval", "4")
    start = metrics(task)[0]
    assert (start["kind"], start["strategy"], start["workers"]) == ("start", "easgd", 2)
    assert start["options"]["sync_interval"] == 4
    assert (start["batch"], start["per_worker"]) == (5, False)
    assert "pyspark" not in start["versions"]


def test_iterations_per_worker_count_the_images_of_all(task: Path) -> None:
    train(*WORKERS, "sparknet", "--per-worker")
    records = metrics(task)
    assert (records[0]["batch"], records[0]["per_worker"]) == (10, True)
    assert all(record["samples"] == 10 * record["iteration"] for record in records)


@pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])
def test_beginning_of_workers_comes_after_the_first_test_and_before_the_first_exchange(
    task: Path, strategy: str
) -> None:
    train(*WORKERS, strategy)
    records = metrics(task)
    names = [record.get("event", record["kind"]) for record in records]
    assert names[:3] == ["start", "test", "begin"]
    assert names.count("begin") == names.count("end") == 1
    assert names[-1] == "end"
    assert len(records[-1]["workers"]) == 2


def test_warm_start_is_part_of_the_training(task: Path) -> None:
    train(*WORKERS, "sparknet", "--warm-start", "10")
    records = metrics(task)
    names = [record.get("event", record["kind"]) for record in records]
    assert names.count("begin") == 1
    assert names.index("begin") < names.index("train")


def test_resumed_run_says_again_how_it_was_set_up(task: Path) -> None:
    train()
    train("--snapshot", "run/tiny_iter_20.solverstate")
    records = metrics(task)
    starts = [record for record in records if record["kind"] == "start"]
    assert [start["iteration"] for start in starts] == [0, 20]
    assert [r["event"] for r in records if r["kind"] == "event"] == ["begin", "end"] * 2
