"""What runs have recorded: metrics files that are whole, cut off or resumed, and logs."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from golden_cases import GOLDEN
from trainer.errors import DataError
from trainer.metrics import MetricsFile
from trainer.plotting.names import distinct_names
from trainer.plotting.records import RunRecords, parse_line, printable, read_run, read_runs

LOGS = GOLDEN / "logs"


def record(kind: str, iteration: int, seconds: float, **values: Any) -> dict[str, Any]:
    return {"kind": kind, "iteration": iteration, "samples": 7 * iteration, "seconds": seconds} | (
        values
    )


def exchange(rank: int, worker_iteration: int, seconds: float, **values: Any) -> dict[str, Any]:
    place = {"rank": rank, "worker_iteration": worker_iteration}
    return record("exchange", 2 * worker_iteration, seconds, **place, **({"loss": 0.5} | values))


def write(path: Path, *records: dict[str, Any], end: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in records) + end)
    return path


def read(folder: Path, *records: dict[str, Any], end: str = "") -> RunRecords:
    return read_run(write(folder / "a_metrics.jsonl", *records, end=end))


def places(records: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(each["iteration"], each["seconds"]) for each in records]


def test_records_come_by_kind(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "net_metrics.jsonl", 7, is_resumed=False)
    metrics.write("start", 0, {"net": "tiny", "workers": 2})
    metrics.write("test", 0, {"net": 0, "accuracy": 0.25})
    metrics.write("train", 5, {"loss": math.nan, "lr": 0.1})
    metrics.write("exchange", 5, {"rank": 1, "loss": 0.5})
    metrics.write("event", 5, {"event": "end"})
    metrics.write("of the future", 5, {})
    metrics.close()
    run = read_run(tmp_path)
    assert run.path == tmp_path / "net_metrics.jsonl"
    assert run.name == tmp_path.name
    assert run.start is not None
    assert run.start["workers"] == 2
    assert [each["accuracy"] for each in run.test] == [0.25]
    assert [(each["loss"], each["samples"]) for each in run.train] == [(None, 35)]
    assert [each["rank"] for each in run.exchange] == [1]
    assert [each["event"] for each in run.event] == ["end"]


@pytest.mark.parametrize("end", ["{", '{"kind": "train", "iteration": 9, "sec', "\n\n"])
def test_a_last_line_may_be_cut_off(tmp_path: Path, end: str) -> None:
    run = read(tmp_path, record("train", 5, 1.0, loss=3.0), end=end)
    assert places(run.train) == [(5, 1.0)]


def test_a_line_that_was_cut_off_and_continued_is_its_end() -> None:
    whole = record("test", 5, 1.0, accuracy=0.5)
    assert parse_line(json.dumps(whole)[:31] + json.dumps(whole) + "\n") == whole


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[1]",
        '{"kind": 3, "iteration": 1, "seconds": 1}',
        '{"kind": "train", "seconds": 1}',
        '{"kind": "train", "iteration": true, "seconds": 1}',
        '{"kind": "train", "iteration": 1, "seconds": null}',
        '{"kind": "train", "iteration": 1, "seconds": 1, "samples": "many"}',
        '{"kind": "train", "iteration": 1' + 400 * "0" + ', "seconds": 1}',
        '{"kind": "train", "iteration": 1' + 5000 * "0" + ', "seconds": 1}',
        "[" * 100_000,
    ],
)
def test_what_is_no_record_is_none(line: str) -> None:
    assert parse_line(line) is None


def test_a_resumed_run_adds_up_its_seconds_and_replaces_what_it_did_again(tmp_path: Path) -> None:
    run = read(
        tmp_path,
        record("test", 0, 0.5, net=0, accuracy=0.1),
        record("train", 100, 10.0, loss=3.0),
        record("test", 100, 11.0, net=0, accuracy=0.2),
        record("train", 200, 20.0, loss=2.0),
        record("train", 300, 30.0, loss=1.0),
        record("test", 100, 1.0, net=0, accuracy=0.2),  # it went on from 100
        record("train", 200, 11.0, loss=2.5),
    )
    assert places(run.test) == [(0, 0.5), (100, 31.0)]
    assert [(each["iteration"], each["seconds"], each["loss"]) for each in run.train] == [
        (100, 10.0, 3.0),
        (200, 41.0, 2.5),
    ]


def test_a_start_line_tells_a_resumption_that_the_clock_does_not(tmp_path: Path) -> None:
    run = read(
        tmp_path,
        record("start", 0, 0.0, workers=1),
        record("train", 10, 1.0),
        record("train", 20, 2.0),
        record("start", 0, 0.0, workers=2),
        record("start", 10, 0.0, workers=3),  # nothing came of the one before
        record("train", 30, 9.0),
    )
    assert places(run.train) == [(10, 1.0), (20, 2.0), (30, 11.0)]
    assert run.start is not None
    assert run.start["workers"] == 3


def test_workers_that_a_resumption_sets_back_lose_what_they_did_ahead(tmp_path: Path) -> None:
    run = read(
        tmp_path,
        *(exchange(rank, step, step + rank / 4) for step in (10, 20) for rank in (0, 1, 2)),
        record("event", 40, 21.0, event="lost"),
        exchange(0, 20, 1.0, loss=9.0),  # with two workers only
        exchange(1, 20, 1.5, loss=8.0),
    )
    assert [(each["rank"], each["iteration"], each["loss"]) for each in run.exchange] == [
        *((rank, 20, 0.5) for rank in (0, 1, 2)),
        (0, 40, 9.0),
        (1, 40, 8.0),
    ]
    assert places(run.event) == [(40, 21.0)]


def test_a_worker_that_is_started_again_replaces_its_own_records(tmp_path: Path) -> None:
    run = read(
        tmp_path,
        *(exchange(rank, step, step) for step in (10, 20) for rank in (0, 1)),
        exchange(1, 10, 30.0),
        exchange(1, 20, 31.0),
    )
    assert [(each["rank"], each["seconds"]) for each in run.exchange] == [
        *((0, 10), (0, 20)),
        *((1, 30.0), (1, 31.0)),
    ]


def test_exchanges_of_a_worker_that_has_nothing_left_to_do_are_kept(tmp_path: Path) -> None:
    run = read(tmp_path, exchange(0, 10, 1.0), exchange(0, 10, 2.0, loss=None))
    assert [each["loss"] for each in run.exchange] == [0.5, None]


def test_records_of_one_process_may_come_a_little_late(tmp_path: Path) -> None:
    run = read(tmp_path, record("train", 10, 5.0), record("test", 10, 4.999, net=0))
    assert places(run.train + run.test) == [(10, 5.0), (10, 4.999)]


def test_test_nets_are_kept_apart(tmp_path: Path) -> None:
    records = [record("test", step, step, net=net) for step in (0, 5) for net in (0, 1)]
    run = read(tmp_path, *records)
    assert run.test == records


def table(name: str) -> list[dict[str, float]]:
    """Return what Caffe's own tool made of a log."""
    with (LOGS / "parse_log_py" / name).open(newline="") as file:
        return [{key: float(text) for key, text in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train_sgd.log", "train"),
        ("train_sgd.log", "test"),
        ("train_multistep_clip.log", "test"),
    ],
)
def test_a_log_of_caffes_holds_what_its_own_tool_reads(name: str, kind: str) -> None:
    run = read_run(LOGS / name)
    records = [
        {"NumIters": each["iteration"], "Seconds": each["seconds"]}
        | {key: each[key] for key in ("accuracy", "loss") if key in each}
        for each in {"train": run.train, "test": run.test}[kind]
    ]
    expected = [
        {key: value for key, value in row.items() if key != "LearningRate"}
        for row in table(f"{name}.{kind}")
    ]
    assert len(expected) >= 2
    for found, wanted in zip(records, expected, strict=False):  # the last loss is ours alone
        assert found == pytest.approx(wanted, abs=2e-3)
    assert len(records) - len(expected) == (kind == "train")


def test_a_log_of_caffes_is_read_better_than_its_own_tool_does() -> None:
    run = read_run(LOGS / "train_autoencoder.log")
    assert [(each["iteration"], each["net"]) for each in run.test] == [
        (iteration, net) for iteration in (0, 8, 16, 24) for net in (0, 1)
    ]
    assert run.test[4]["cross_entropy_loss"] == 214.822
    assert run.test[5]["cross_entropy_loss"] == 220.412
    rates = [(each["iteration"], each.get("lr")) for each in run.train]
    assert rates[3:] == [(12, 0.001), (16, 0.001), (20, 0.0001), (24, None)]
    assert run.train[1]["l2_error"] == 27.5275
    finetuned = read_run(LOGS / "train_finetune.log")
    assert len(finetuned.test) == 1
    assert "accuracy" in finetuned.test[0]
    assert "samples" not in finetuned.test[0]


def test_numbers_that_a_log_lacks_are_none(tmp_path: Path) -> None:
    stamp = "I0102 03:04:05.000000  1 solver.cpp:1] "
    lines = ["Solving net", "Iteration 0, loss = nan", "Iteration 5, loss = oops"]
    path = tmp_path / "a.log"
    path.write_text("".join(f"{stamp}{line}\n" for line in [*lines, "Iteration 9, loss = 0.5"]))
    assert [each["loss"] for each in read_run(path).train] == [None, None, 0.5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \n\n", "the file is empty"),
        (bytes(range(256)) * 9, "expected a metrics file"),
        (b"hello\n", "found neither"),
        (b"I am Solving problems\n", "with a stamped line `Solving NET`"),
        (b"{", "no whole record"),
        (b'{"a": 1}\n', "no whole record"),
        (
            b'{"a": 1}\n{"kind": "train", "iteration": 1, "seconds": 1}\n',
            r"jsonl:1: expected a rec",
        ),
    ],
)
def test_a_file_that_is_no_run_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a_metrics.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_run(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: cannot read the run: No such file"):
        read_run(tmp_path / "nowhere")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a_metrics.jsonl", record("train", 1, 1.0))
    with pytest.raises(DataError, match="cannot read the run: Not a directory"):
        read_run(path / "b_metrics.jsonl")


def test_a_folder_holds_exactly_one_metrics_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found none among no files"):
        read_run(tmp_path)
    for number in range(10):
        (tmp_path / f"{number}.log").touch()
    with pytest.raises(DataError, match=r"found none among 0\.log, .*7\.log and 2 more; name the"):
        read_run(tmp_path)
    write(tmp_path / "a_metrics.jsonl", record("train", 1, 1.0))
    assert places(read_run(tmp_path).train) == [(1, 1.0)]
    write(tmp_path / "b_metrics.jsonl", record("train", 1, 1.0))
    with pytest.raises(DataError, match=r"found a_metrics\.jsonl, b_metrics\.jsonl; name one of"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a"], ["a"]),
        (["runs/a/net_metrics.jsonl"], ["net"]),
        (["runs/a", "runs/b"], ["a", "b"]),
        (["runs/a/seed1", "runs/b/seed1"], ["a", "b"]),
        (["runs/a/1", "runs/a/2", "runs/b/1"], ["a/1", "a/2", "b/1"]),
        (["a/net_metrics.jsonl", "b/net_metrics.jsonl"], ["a", "b"]),
        (["a/x_metrics.jsonl", "a/y.log"], ["x", "y"]),
        (["a/x_metrics.jsonl", "a/x.log"], ["x_metrics.jsonl", "x.log"]),
        (["runs", "runs/a", "runs/a/b"], ["runs", "runs/a", "runs/a/b"]),
        (["lr0.1", "../here/lr0.01"], ["lr0.1", "lr0.01"]),
        (["a/_metrics.jsonl", "a/b_metrics.jsonl"], ["_metrics.jsonl", "b"]),
    ],
)
def test_names_are_the_shortest_parts_that_differ(
    paths: list[str], names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert distinct_names([Path(path) for path in paths]) == names


def test_a_run_that_is_named_twice_comes_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "net_metrics.jsonl", record("train", 1, 1.0))
    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "a" / "net_metrics.jsonl"]
    assert [run.name for run in read_runs(paths)] == ["a", "b"]


def test_names_can_be_printed() -> None:
    assert printable("naïve α\x01\n\udcff") == "naïve α\ufffd\ufffd\ufffd"


def test_runs_are_read_without_matplotlib_and_the_command_line_does_not_load_it() -> None:
    code = (
        "import sys, trainer.cli, trainer.plotting.curves, trainer.plotting.records; "
        "print(any(name.split('.')[0] == 'matplotlib' for name in sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout == "False\n"
