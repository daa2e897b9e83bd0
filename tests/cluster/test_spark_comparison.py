"""`torrefy compare` with workers on Spark."""

import json
from pathlib import Path

import pytest

from prototxt_parser.text import print_text
from tiny_task import tiny_net, tiny_param, write_data
from trainer.cli import main

pytestmark = [pytest.mark.cluster]


def test_times_of_runs_on_spark_count_from_where_training_begins(tmp_path: Path) -> None:
    write_data(tmp_path)
    (tmp_path / "tiny.prototxt").write_text(print_text(tiny_net().param), encoding="utf-8")
    solver = print_text(tiny_param(tmp_path))
    (tmp_path / "tiny_solver.prototxt").write_text(solver, encoding="utf-8")
    words = [
        *("compare", "--net", str(tmp_path / "tiny.prototxt"), "--data", str(tmp_path)),
        *("--out", str(tmp_path / "runs"), "--iterations", "60", "--tests", "3", "--seeds", "1"),
        *("--strategies", "single,sparknet,downpour"),
    ]
    assert main(words) == 0
    lines = (tmp_path / "runs/results.jsonl").read_text(encoding="utf-8").splitlines()
    single, *others = map(json.loads, lines)
    assert [row["status"] for row in (single, *others)] == ["finished"] * 3
    assert "pyspark" not in single["versions"]
    assert [row["strategy"] for row in others] == ["sparknet", "downpour"]
    for row in others:
        assert row["versions"]["pyspark"] != "unknown"
        assert row["start_s"] > single["start_s"]  # by the start of Java
        assert [test["iteration"] for test in row["tests"]][::3] == [0, 60]
        assert row["exchanges"]["compute_s"] > 0
    page = (tmp_path / "runs/report.html").read_text(encoding="utf-8")
    assert "downpour, 2 workers" in page
