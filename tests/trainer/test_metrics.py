"""What a run writes into its metrics file beside its curves: how it was set up, when it began."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from prototxt_parser.text import print_text
from tests.tiny_task import tiny_net, tiny_param, write_data
from trainer.cli import train_main

WORKERS = ["--workers", "2", "--master", "in-process", "--strategy"]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    (tmp_path / "tiny.prototxt").write_text(print_text(tiny_net().param))
    param = tiny_param(Path("tiny"), net="tiny.prototxt", snapshot=20, display=10)
    (tmp_path / "tiny_solver.prototxt").write_text(print_text(param))
    return tmp_path


def train(*words: str) -> None:
    assert train_main(["--solver", "tiny_solver.prototxt", "--seed", "5", *words]) == 0


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "tiny_metrics.jsonl").read_text().splitlines()]


def test_first_record_says_how_one_process_was_set_up(task: Path) -> None:
    train("--out", "run")
    start = metrics(task / "run")[0]
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
    train("--out", "run", *WORKERS, "easgd", "--sync-interval", "4")
    start = metrics(task / "run")[0]
    assert (start["kind"], start["strategy"], start["workers"]) == ("start", "easgd", 2)
    assert start["options"]["sync_interval"] == 4
    assert (start["batch"], start["per_worker"]) == (5, False)
    assert "pyspark" not in start["versions"]


def test_iterations_per_worker_count_the_images_of_all(task: Path) -> None:
    train("--out", "run", *WORKERS, "sparknet", "--per-worker")
    records = metrics(task / "run")
    assert (records[0]["batch"], records[0]["per_worker"]) == (10, True)
    assert all(record["samples"] == 10 * record["iteration"] for record in records)


@pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])
def test_beginning_of_workers_comes_after_the_first_test_and_before_the_first_exchange(
    task: Path, strategy: str
) -> None:
    train("--out", "run", *WORKERS, strategy)
    records = metrics(task / "run")
    names = [record.get("event", record["kind"]) for record in records]
    assert names[:3] == ["start", "test", "begin"]
    assert names.count("begin") == names.count("end") == 1
    assert names[-1] == "end"
    assert len(records[-1]["workers"]) == 2


def test_warm_start_is_part_of_the_training(task: Path) -> None:
    train("--out", "run", *WORKERS, "sparknet", "--warm-start", "10")
    records = metrics(task / "run")
    names = [record.get("event", record["kind"]) for record in records]
    assert names.count("begin") == 1
    assert names.index("begin") < names.index("train")


def test_resumed_run_says_again_how_it_was_set_up(task: Path) -> None:
    train("--out", "run")
    train("--out", "run", "--snapshot", "run/tiny_iter_20.solverstate", "--device", "cpu")
    records = metrics(task / "run")
    starts = [record for record in records if record["kind"] == "start"]
    assert [start["iteration"] for start in starts] == [0, 20]
    assert [r["event"] for r in records if r["kind"] == "event"] == ["begin", "end"] * 2
