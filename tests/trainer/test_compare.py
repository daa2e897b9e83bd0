"""`torrefy compare`: real runs in processes of their own, resumed, interrupted, failed."""

import csv
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Never

import psutil
import pytest

from prototxt_parser.text import print_text
from tiny_task import tiny_net, tiny_param, write_data
from trainer.cli import main

ROOT = Path(__file__).resolve().parents[2]
# What is started in a shell's background ignores SIGINT, and so does what that starts.
COMPARE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from trainer.cli import main
sys.exit(main(sys.argv[1:]))
"""
ITERATIONS, TESTS = 24, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the tiny task's net, solver and data, and one comparison of it."""
    folder = tmp_path_factory.mktemp("compare")
    write_data(folder)
    (folder / "tiny.prototxt").write_text(print_text(tiny_net().param), encoding="utf-8")
    solver = tiny_param(folder, snapshot=5)
    (folder / "tiny_solver.prototxt").write_text(print_text(solver), encoding="utf-8")
    compare(folder, "runs", "--seeds", "2")
    return folder


def words(folder: Path, out: str, *more: str) -> list[str]:
    return [
        *("compare", "--net", str(folder / "tiny.prototxt"), "--data", str(folder)),
        *("--out", str(folder / out), "--iterations", str(ITERATIONS), "--tests", str(TESTS)),
        *("--strategies", "single,sparknet,deepspark", "--sync-interval", "2"),
        *("--master", "in-process", *more),
    ]


def compare(folder: Path, out: str, *more: str) -> int:
    return main(words(folder, out, *more))


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def interrupt(*_: object) -> Never:
    raise KeyboardInterrupt


def test_each_run_gives_a_row(folder: Path) -> None:
    rows = rows_of(folder / "runs")
    names = ["single", "sparknet-2-sync_interval=2", "deepspark-2-sync_interval=2"]
    assert [row["run"] for row in rows] == [
        f"{name}/seed{seed}" for seed in (1, 2) for name in names
    ]
    for row in rows:
        assert (row["status"], row["error"], row["net"]) == ("finished", None, "tiny.prototxt")
        assert (row["iterations"], row["batch"], row["samples"]) == (24, 5, 120)
        assert [test["iteration"] for test in row["tests"]] == [0, 8, 16, 24]
        assert [test["samples"] for test in row["tests"]] == [0, 40, 80, 120]
        seconds = [test["seconds"] for test in row["tests"]]
        assert seconds == sorted(seconds)
        assert 0 < seconds[-1] <= row["seconds"]
        assert (row["metric"], row["final"]) == ("accuracy", row["tests"][-1]["accuracy"])
        assert row["train"][-1]["loss"] > 0
        assert 0 <= row["other_load"] <= 1
        assert row["machine"]["cores"] >= 1
        assert {"python", "torch", "torrefy"} <= row["versions"].keys()
    single, sparknet, deepspark = (row["exchanges"] for row in rows[:3])
    assert single is None
    assert (sparknet["count"], sparknet["staleness"]) == (12, {"0": 12})
    assert (deepspark["count"], deepspark["staleness_max"]) == (12, 1)
    assert sum(deepspark["staleness"].values()) == 12


@pytest.mark.slow
def test_seeds_make_runs_differ_and_nothing_else_does(folder: Path) -> None:
    assert compare(folder, "again", "--seeds", "2") == 0
    before, after = rows_of(folder / "runs"), rows_of(folder / "again")

    def losses(row: dict[str, Any]) -> list[float]:
        return [test["loss"] for test in row["tests"]]

    assert [losses(row) for row in before] == [losses(row) for row in after]
    assert losses(before[0]) != losses(before[3])


def test_a_spreadsheet_reads_the_table(folder: Path) -> None:
    with (folder / "runs/results.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    rows = rows_of(folder / "runs")
    assert [line["run"] for line in table] == [row["run"] for row in rows]
    assert [line["sync_interval"] for line in table[:3]] == ["", "2", "2"]
    assert [float(line["final"]) for line in table] == [row["final"] for row in rows]
    assert float(table[1]["images_per_s"]) > 0
    assert [line["count"] for line in table[:3]] == ["", "12", "12"]


def test_the_report_is_a_page_about_these_runs(folder: Path) -> None:
    page = (folder / "runs/report.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert "deepspark, 2 workers, sync_interval 2" in page
    assert "torrefy compare --net" in page


@pytest.mark.slow
def test_by_the_papers_count_workers_see_more(folder: Path) -> None:
    assert compare(folder, "papers", "--per-worker", "--seeds", "1") == 0
    single, *others = rows_of(folder / "papers")
    assert [row["batch"] for row in (single, *others)] == [5, 5, 5]
    assert [row["samples"] for row in (single, *others)] == [120, 240, 240]
    assert [test["samples"] for test in others[0]["tests"]] == [0, 80, 160, 240]
    assert [test["iteration"] for test in others[0]["tests"]] == [0, 8, 16, 24]


def test_what_was_run_is_not_run_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "runs"
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*/*")}
    capsys.readouterr()
    assert compare(folder, "runs", "--seeds", "2") == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*/*")} == before
    assert "6 runs of 24 iterations" in capsys.readouterr().out
    assert compare(folder, "runs", "--seeds", "3") == 0
    assert [row["seed"] for row in rows_of(out)] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert all((path in before) == ("seed3" not in str(path)) for path in out.glob("*/*/*"))


def test_results_of_something_else_are_not_mixed_in(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "runs/results.jsonl").read_bytes()
    assert compare(folder, "runs", "--per-worker") == 2
    assert "holds runs with another per_worker" in capsys.readouterr().err
    words_ = ["64" if word == str(ITERATIONS) else word for word in words(folder, "runs")]
    assert main(words_) == 2
    assert "holds runs with another solver" in capsys.readouterr().err
    assert (folder / "runs/results.jsonl").read_bytes() == before


def test_disturbed_runs_are_repeated_and_count_until_then(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder / "disturbed"
    shutil.copytree(folder / "runs", out)
    results = list(out.glob("*/seed[12]/result.json"))
    for path in results:
        load = 0.5 if path.parts[-3:-1] == ("single", "seed2") else 0.0
        path.write_text(json.dumps(json.loads(path.read_text()) | {"other_load": load}))
    before = {path: path.stat().st_mtime_ns for path in results}
    flags = "--seeds", "2", "--repeat-disturbed"
    with monkeypatch.context() as patch:
        patch.setattr("trainer.commands.compare.run_one", interrupt)
        assert compare(folder, "disturbed", *flags) == 130
    assert [row["other_load"] for row in rows_of(out)] == [0.0, 0.0, 0.0, 0.5, 0.0, 0.0]
    assert compare(folder, "disturbed", *flags) == 0
    assert len(rows_of(out)) == 6
    changed = [path for path in results if path.stat().st_mtime_ns != before[path]]
    assert changed == [out / "single/seed2/result.json"]


def test_results_that_somebody_spoilt_are_made_again(folder: Path) -> None:
    result = folder / "runs/single/seed1/result.json"
    before = json.loads(result.read_text(encoding="utf-8"))
    result.write_text('{"run": "sing', encoding="utf-8")
    assert compare(folder, "runs") == 0
    after = json.loads(result.read_text(encoding="utf-8"))
    assert (after["run"], after["final"]) == (before["run"], before["final"])


def test_a_folder_is_one_comparisons(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "runs/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert compare(folder, "runs") == 2
    assert "another comparison is writing it" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_fails_is_reported_and_tried_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--seeds", "1", "--", "--deepspark-conf", "none.conf")
    assert compare(folder, "failing", *more) == 1
    assert "3 runs failed; the same command tries them again" in capsys.readouterr().out
    rows = rows_of(folder / "failing")
    assert [row["status"] for row in rows] == ["failed"] * 3
    assert "--deepspark-conf is a flag of strategy deepspark" in rows[1]["error"]
    page = (folder / "failing/report.html").read_text(encoding="utf-8")
    assert "--deepspark-conf is a flag of strategy deepspark" in page
    assert compare(folder, "failing", "--seeds", "1") == 0
    assert [row["status"] for row in rows_of(folder / "failing")] == ["finished"] * 3


def start(folder: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", COMPARE, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def trains(folder: Path, out: str) -> list[psutil.Process]:
    """Return the processes that train for a comparison."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words_ = process.info["cmdline"] or []
        if "--checkpoints" in words_ and any(str(folder / out) in word for word in words_):
            found.append(process)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.slow
def test_one_that_was_interrupted_goes_on(folder: Path, number: signal.Signals) -> None:
    out = f"interrupted{number.value}"
    arguments = words(folder, out, "--seeds", "1")
    process = start(folder, arguments)
    deadline = time.monotonic() + 200
    while not (running := trains(folder, out)):  # a run with workers: single is over
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == (130 if number == signal.SIGINT else -9)
    assert (b"interrupted" in errors) == (number == signal.SIGINT)
    psutil.wait_procs(running, timeout=30)
    assert not any(each.is_running() for each in running)
    (before,) = rows_of(folder / out)
    assert main(arguments) == 0
    rows = rows_of(folder / out)
    assert len(rows) == 3
    assert rows[0] == before


def test_a_study_in_a_file_is_the_same_as_flags(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = folder / "study.toml"
    study.write_text(
        f'net = "tiny.prototxt"\niterations = {ITERATIONS}\ntests = {TESTS}\nseeds = 2\n'
        '[[strategy]]\nname = "single"\n[[strategy]]\nname = "sparknet"\nsync_interval = 2\n',
        encoding="utf-8",
    )
    base = ["compare", "--study", str(study), "--out", str(folder / "runs")]
    assert main([*base, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        *("single/seed1", "sparknet-2-sync_interval=2/seed1"),
        *("single/seed2", "sparknet-2-sync_interval=2/seed2"),
    ]
    assert main([*base, "--seeds", "5", "--sync-interval", "2"]) == 2
    assert "--study says what to compare: leave out --seeds, --sync-interval" in (
        capsys.readouterr().err
    )


def test_wrong_words_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(folder / "wrong")]
    net = ["--net", str(folder / "tiny.prototxt")]
    for arguments, message in (
        ([*net, "--strategies", "sparkent"], 'unknown strategy "sparkent"'),
        ([*net, "--workers", "2,x"], "--workers: expected numbers"),
        ([*net, "--sync-interval", "0"], "sync_interval: expected 1 or more"),
        (["--net", "nosuch.prototxt"], "nosuch.prototxt: no such file"),
        ([], "Need a solver definition"),
        ([*net, "--samples", "5", "--iterations", "5"], "samples or iterations"),
    ):
        assert main(["compare", *arguments, *out]) == 2
        assert message in capsys.readouterr().err
    assert not list((folder / "wrong").glob("*/*"))
    untested = folder / "untested_solver.prototxt"
    untested.write_text(print_text(tiny_param(folder, test_iter=[])), encoding="utf-8")
    assert main(["compare", *net, "--solver", str(untested), *out]) == 2
    assert "expected tests, by test_iter; found none" in capsys.readouterr().err
    assert main(["compare", *net, "--out", str(folder / "tiny.prototxt/x")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_run_that_diverges_is_an_outcome_and_not_tried_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    solver = folder / "steep_solver.prototxt"
    solver.write_text(print_text(tiny_param(folder, base_lr=1e30)), encoding="utf-8")
    more = ("--seeds", "1", "--solver", str(solver))
    assert compare(folder, "diverging", *more) == 0
    rows = rows_of(folder / "diverging")
    assert [row["status"] for row in rows] == ["diverged"] * 3
    assert "deepspark-2-sync_interval=2/seed1: diverged" in capsys.readouterr().out
    assert "NaN or infinite parameters" in rows[2]["error"]
    page = (folder / "diverging/report.html").read_text(encoding="utf-8")
    assert "In each of them runs diverged" in page
    assert "NaN or infinite parameters" in page
    assert compare(folder, "diverging", *more) == 0
    assert rows_of(folder / "diverging") == rows
