"""Tables out of logs: byte for byte those of Caffe's own tools, for Caffe's logs and for ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from golden_cases import GOLDEN
from trainer.cli import main, train_main
from trainer.parse_log import output_rows, read_log, shell_tables

LOGS = GOLDEN / "logs"
TABLES = {
    kind: sorted(path.name for path in (LOGS / f"parse_log_{kind}").iterdir())
    for kind in ("py", "sh")
}


@pytest.mark.parametrize(
    ("kind", "table"), [(kind, table) for kind, tables in TABLES.items() for table in tables]
)
def test_tables_equal_those_of_caffes_tools(kind: str, table: str, tmp_path: Path) -> None:
    log = LOGS / Path(table).stem
    assert main(["parse-log", str(log), str(tmp_path), "--format", kind]) == 0
    assert (tmp_path / table).read_bytes() == (LOGS / f"parse_log_{kind}" / table).read_bytes()


def test_a_table_without_a_complete_row_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = LOGS / "train_finetune.log"  # one test, and a row is complete when the next one begins
    assert "train_finetune.log.test" not in TABLES["py"]
    assert main(["parse-log", str(log), str(tmp_path), "--verbose"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["train_finetune.log.train"]
    out = capsys.readouterr().out
    assert f"Wrote {tmp_path}/train_finetune.log.train" in out
    assert f"Not writing {tmp_path}/train_finetune.log.test" in out


STAMP = "I1231 23:59:58.500000  1234 solver.cpp:1] "


def write_log(folder: Path, *lines: str) -> Path:
    path = folder / "a.log"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_seconds_go_on_over_new_year(tmp_path: Path) -> None:
    path = write_log(
        tmp_path,
        f"{STAMP}Solving net",
        f"{STAMP}Iteration 0, loss = 3",
        "I0101 00:00:01.250000  1234 solver.cpp:1] Iteration 5, loss = 2",
        "I0102 00:00:01.250000  1234 solver.cpp:1] Iteration 6, loss = 1",
    )
    assert [line.seconds for line in read_log(path)] == [0.0, 2.75, 2.75 + 86400]
    assert shell_tables(read_log(path))[0] == (
        "#Iters Seconds TrainingLoss LearningRate\n"
        "0  0.000000      3\n5  2.750000      2\n6  86402.750000  1\n"
    )


def test_stamps_of_new_glog_say_the_year(tmp_path: Path) -> None:
    path = write_log(
        tmp_path,
        "I20231231 23:59:58.500000  1234 solver.cpp:1] Solving net",
        "I20240301 23:59:58.500000  1234 solver.cpp:1] Iteration 5, loss = 2",
    )
    assert read_log(path)[0].seconds == 61 * 86400  # 2024 is a leap year


def test_lines_without_a_stamp_or_a_number_are_passed_over(tmp_path: Path) -> None:
    path = write_log(
        tmp_path,
        "    Train net output #0: early = 1",
        f"{STAMP}Solving net",
        "",
        f"{STAMP}    Train net output #0: unnumbered = 1",
        f"{STAMP}Iteration 4 (-1.2e-42 iter/s, 0s/4 iters), loss = nan",
        f"{STAMP}    Train net output #0: loss = nan",
        f"{STAMP}    Train net output #1: other = -1.5e-05",
        f"{STAMP}Iteration 4, lr = 1e-05",
        "Iteration 8",
        f"{STAMP}    Train net output #0: other = inf",
        f"{STAMP}    Train net output #1: other = 7.25 (* 2 = 14.5 loss)",
    )
    train, test = output_rows(read_log(path))
    assert test == []
    assert train == [
        {"NumIters": 4.0, "Seconds": 0.0, "LearningRate": 1e-05, "other": -1.5e-05},
        {"NumIters": 8.0, "Seconds": 0.0, "LearningRate": 1e-05, "other": 7.25},
    ]


BAD = {
    "no run": (["lines of", "something else"], "expected the log of a training run"),
    "unstamped": (["Solving net"], "expected the log of a training run"),
    "no such day": (["I0230 01:02:03.000001 1 solver.cpp:1] Solving net"], "expected the log"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_log_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, message = BAD[name]
    assert main(["parse-log", str(write_log(tmp_path, *lines)), str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}/a.log: {message}")
    assert error.count("\n") == 1


def test_a_missing_log_and_folder_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["parse-log", str(tmp_path / "none.log")]) == 1
    assert "none.log: cannot read the log: No such file" in capsys.readouterr().err
    log = str(LOGS / "train_sgd.log")
    assert main(["parse-log", log, str(tmp_path / "nowhere")]) == 1
    assert "cannot write the table: No such file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["parse-log", log, str(tmp_path), "--delimiter", ";;"])


def own_log(folder: Path) -> Path:
    """Shrink a bias for 6 iterations; returns the log."""
    (folder / "tiny.prototxt").write_text("""name: "tiny"
layer { name: "one" type: "Parameter" top: "one" parameter_param { shape { dim: 3 dim: 2 } }
  param { lr_mult: 0 } }
layer { name: "score" type: "InnerProduct" bottom: "one" top: "score"
  inner_product_param { num_output: 4 bias_filler { type: "constant" value: 2 } } }
layer { name: "size" type: "Reduction" bottom: "score" top: "size" loss_weight: 0.05
  reduction_param { operation: SUMSQ } }
""")
    (folder / "tiny_solver.prototxt").write_text("""net: "tiny.prototxt"
base_lr: 0.05 lr_policy: "step" gamma: 0.5 stepsize: 2 max_iter: 6 display: 2
test_iter: 1 test_interval: 3 snapshot_prefix: "tiny" random_seed: 7
""")
    assert train_main(["--solver", "tiny_solver.prototxt", "--out", "runs"]) == 0
    return folder / "runs/tiny_train.log"


def test_our_own_log_is_read_with_the_same_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = own_log(tmp_path)
    train, test = output_rows(read_log(log))
    assert [row["NumIters"] for row in train] == [0, 2, 4]
    assert [row["NumIters"] for row in test] == [0, 3, 6]
    assert [row["LearningRate"] for row in train] == [0.05, 0.05, 0.025]
    assert train[0].keys() == {"NumIters", "Seconds", "LearningRate", "size"}
    assert train[0]["size"] == 48  # 3 times 4 elements of 2 squared
    assert train[2]["size"] < train[1]["size"] < 48
    losses, tests = shell_tables(read_log(log))
    rows = [line.split() for line in losses.splitlines()[1:]]
    assert [row[0] for row in rows] == ["0", "2", "4", "6"]
    assert [row[3:] for row in rows] == [["0.05"], ["0.025"], ["0.0125"], []]
    assert [float(row[2]) for row in rows[:3]] == pytest.approx(
        [row["size"] * 0.05 for row in train], rel=1e-5
    )
    assert len(tests.splitlines()) == 4


def test_every_line_that_caffes_parsers_look_for_is_in_our_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expressions follow the messages of the recorded logs, each of which they match too."""
    monkeypatch.chdir(tmp_path)
    own = own_log(tmp_path).read_text().splitlines()
    recorded = (LOGS / "train_sgd.log").read_text().splitlines()
    number = r"[-+.\deE]+"
    stamp = r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ "
    for pattern in (
        rf"{stamp}caffe\.cpp:\d+\] Use CPU\.",
        rf"{stamp}solver\.cpp:\d+\] Creating training net from net file: \S+\.prototxt",
        rf"{stamp}solver\.cpp:\d+\] Creating test net \(#0\) specified by net file: \S+\.prototxt",
        rf"{stamp}solver\.cpp:\d+\] Solver scaffolding done\.",
        rf"{stamp}caffe\.cpp:\d+\] Starting Optimization",
        rf"{stamp}solver\.cpp:\d+\] Solving \w+",
        rf"{stamp}solver\.cpp:\d+\] Learning Rate Policy: \w+",
        rf"{stamp}solver\.cpp:\d+\] Iteration \d+, Testing net \(#0\)",
        rf"{stamp}solver\.cpp:\d+\]     Test net output #\d+: \S+ = {number} "
        rf"\(\* {number} = {number} loss\)",
        rf"{stamp}solver\.cpp:\d+\] Iteration \d+ \({number} iter/s, {number}s/\d+ iters\), "
        rf"loss = {number}",
        rf"{stamp}solver\.cpp:\d+\]     Train net output #0: \S+ = {number} "
        rf"\(\* {number} = {number} loss\)",
        rf"{stamp}\w+\.cpp:\d+\] Iteration \d+, lr = {number}",
        rf"{stamp}\w+\.cpp:\d+\] Snapshotting to binary proto file \S+\.caffemodel",
        rf"{stamp}sgd_solver\.cpp:\d+\] Snapshotting solver state to binary proto file "
        r"\S+\.solverstate",
        rf"{stamp}solver\.cpp:\d+\] Iteration \d+, loss = {number}",
        rf"{stamp}solver\.cpp:\d+\] Optimization Done\.",
        rf"{stamp}caffe\.cpp:\d+\] Optimization Done\.",
    ):
        for lines in (recorded, own):
            assert any(re.fullmatch(pattern, line) for line in lines), pattern
    assert "\n".join(own).count("Optimization Done.") == 2
