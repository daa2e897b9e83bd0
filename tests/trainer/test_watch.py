"""torrefy watch: reading a file that grows, and what is drawn of it."""

import io
import json
import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from run_records import Record, event, exchange, record, start
from tiny_runs import WORKERS, train, write_task

from trainer.cli import main
from trainer.errors import DataError
from trainer.watching.follower import Follower
from trainer.watching.state import RunState
from trainer.watching.view import frame

ROOT = Path(__file__).resolve().parents[2]


def lines(records: Sequence[Record]) -> str:
    return "".join(json.dumps(each) + "\n" for each in records)


def drawn(
    records: Sequence[Record], width: int = 80, height: int | None = None, quiet_s: float = 0.0
) -> list[str]:
    """Return the lines of a frame; none is wider than the terminal."""
    state = RunState()
    for each in records:
        state.add(each)
    console = Console(file=io.StringIO(), width=width, highlight=False, force_terminal=False)
    with console.capture() as capture:
        console.print(frame(state, quiet_s, width, height))
    found = capture.get().splitlines()
    assert max(map(len, found)) <= width
    return [line.rstrip() for line in found]


RUN = [
    start(net="CIFAR10_quick", workers=2, max_iter=20_000),
    record("test", 0, 1.0, net=0, accuracy=0.1, loss=2.3),
    event("begin", 0, 10.0),
    *(exchange(n % 2, 50 * n, 10.0 + n, loss=2.0 - n / 100, staleness=n % 3) for n in range(1, 99)),
    record("test", 9000, 108.5, net=0, accuracy=0.75, loss=1.3),
    event("straggler", 9000, 140.0, rank=1, host="node-7.example.com", silent_s=31.0),
    event("lost", 9000, 150.0, message="worker 1 " + "was lost, " * 12, resumed_at=8000),
    exchange(0, 4200, 151.0, loss=1.25, staleness=12),
    exchange(1, 4100, 153.0, loss=1.125, staleness=0),
    exchange(0, 4300, 160.0, loss=None),
]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_frame_shows_all_at_every_width(width: int) -> None:
    found = drawn(RUN, width)
    text = "\n".join(found)
    assert found[0].startswith("CIFAR10_quick  deepspark, 2 workers  cpu ")
    assert found[0].endswith(" training")
    assert found[1].endswith(" 42 %")
    assert found[2].startswith("iteration 8,400 of 20,000 ")
    assert found[2].endswith("elapsed 2:40  left 8:42")
    assert "test accuracy  0.75 " in text
    assert "best 0.75 at 9,000" in text
    assert "111 images/s  learning rate 0.01" in text
    head = next(line for line in found if line.startswith("worker")).split()
    assert head == ["worker", "iteration", "loss", "exchanging", "staleness", "last", "heard"]
    (first, second) = (line.split() for line in found if line.strip().startswith(("0 ", "1 ")))
    assert first[:5] == ["0", "4,300", "1.25", "25", "%"]
    assert second[:5] == ["1", "4,100", "1.125", "25", "%"]
    assert second[-3:] == ["7", "s", "ago"]
    words = " ".join(text.split())
    assert "2:20 straggler: no word from worker 1 on node-7.example.com for 31 s" in words
    assert "…" not in text  # nothing is cut off


def test_curves_rise_and_fall() -> None:
    found = drawn(RUN, 80)
    (loss,) = (line for line in found if line.startswith("train loss"))
    (accuracy,) = (line for line in found if line.startswith("test accuracy"))
    assert "█▇" in loss
    assert "▁█" in accuracy


def test_frame_of_one_process_has_no_workers() -> None:
    records = [
        start(strategy="single", workers=1, net="lenet"),
        event("begin", 0, 1.0),
        record("train", 0, 1.0, loss=2.5, lr=0.0125),
        record("train", 500, 11.0, loss=0.5, lr=0.0125),
        event("end", 1000, 22.0),
    ]
    found = drawn(records)
    assert found[0].startswith("lenet  single  cpu ")
    assert found[0].endswith(" done")
    assert found[2].endswith("elapsed 0:22")
    assert not [line for line in found if line.startswith("worker")]
    assert found[-1] == "0:22  ended at iteration 1,000"


@pytest.mark.parametrize(
    ("records", "quiet_s", "status"),
    [
        (RUN[:2], 3.0, "starting"),
        (RUN[:3], 3.0, "training"),
        (RUN, 29.0, "training"),
        (RUN, 75.0, "nothing written for 75 s"),
        (RUN, 3600.0, "nothing written for 60 min"),
        (RUN, 90_000.0, "nothing written for 25 h"),
        (RUN, 900_000.0, "nothing written for 10 d"),
        ([*RUN, event("end", 8500, 161.0)], 3600.0, "stopped early"),
        ([*RUN, event("end", 20_000, 999.0)], 3600.0, "done"),
    ],
)
def test_frame_says_whether_the_run_goes_on(
    records: Sequence[Record], quiet_s: float, status: str
) -> None:
    assert drawn(records, quiet_s=quiet_s)[0].endswith(f" {status}")


def test_many_workers_are_cut_to_the_height_of_the_terminal() -> None:
    records = [start(workers=64), *(exchange(rank, 10, 5.0) for rank in range(64))]
    short, whole = drawn(records, height=30), drawn(records)
    assert len(short) < 30
    assert "and 52 more" in short
    assert len([line for line in whole if line.endswith(" ago")]) == 64


def test_dropped_worker_is_marked() -> None:
    found = drawn([*RUN, event("dropped", 8400, 170.0, rank=1, host="h")])
    assert [line.split()[0] for line in found if line.endswith(" dropped")] == ["1"]


@pytest.mark.parametrize("records", [[], [exchange(0, 10, 5.0), exchange(0, 20, 6.0)]])
def test_frame_of_a_file_that_does_not_say_how_the_run_was_set_up(
    records: Sequence[Record],
) -> None:
    found = drawn(records, 60)
    assert found[0].startswith("a run that does not say how it was set up")
    assert "%" not in found[1]


def test_markup_in_names_is_shown_as_it_is() -> None:
    assert drawn([start(net="[bold]net[/]")])[0].startswith("[bold]net[/]  deepspark")


def test_growing_file_is_read_on(tmp_path: Path) -> None:
    path = tmp_path / "tiny_metrics.jsonl"
    text = lines(RUN)
    middle = len(text) // 2
    path.write_text(text[:middle])
    follower = Follower(path)
    follower.read()
    before = follower.state.iteration
    with path.open("a") as file:
        file.write(text[middle:])
    follower.read()
    follower.read()
    whole = Follower(path)
    whole.read()
    assert before < follower.state.iteration == whole.state.iteration == 8400
    assert follower.state.seconds == 160.0
    assert len(follower.state.events) == 2


def test_every_byte_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny_metrics.jsonl"
    path.write_text(lines(RUN))
    parsed: list[str] = []
    from trainer.watching import follower as module

    parse = module.parse_line
    monkeypatch.setattr(module, "parse_line", lambda line: (parsed.append(line), parse(line))[1])
    follower = Follower(path)
    for _ in range(3):
        follower.read()
        with path.open("a") as file:
            file.write(lines(RUN[-1:]))
    assert len(parsed) == len(RUN) + 2


def test_line_that_is_cut_off_waits_for_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "tiny_metrics.jsonl"
    path.write_bytes(lines(RUN).encode()[:-30])
    follower = Follower(path)
    follower.read()
    assert follower.state.seconds == 153.0
    with path.open("a") as file:
        file.write(lines([start(iteration=8000), exchange(0, 4100, 9.0)]))  # resumed after a kill
    follower.read()
    assert (follower.state.iteration, follower.state.seconds) == (8100, 162.0)


@pytest.mark.parametrize("other", [RUN[:2], [start(net="other"), *RUN[1:], *RUN[-2:]]])
def test_file_that_is_begun_anew_is_read_from_its_start(
    tmp_path: Path, other: Sequence[Record]
) -> None:
    path = tmp_path / "tiny_metrics.jsonl"
    path.write_text(lines(RUN))
    follower = Follower(path)
    follower.read()
    path.write_text(lines(other))
    follower.read()
    anew = Follower(path)
    anew.read()
    assert vars(follower.state.setup) == vars(anew.state.setup)
    assert follower.state.iteration == anew.state.iteration
    assert follower.state.seconds == anew.state.seconds


def test_age_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny_metrics.jsonl"
    path.write_text(lines(RUN))
    os.utime(path, (time.time() - 500, time.time() - 500))
    follower = Follower(path)
    follower.read()
    assert 499 < follower.quiet_s < 600


@pytest.mark.parametrize("text", [b"no metrics\n", b"\x00\x01\n\n", b'{"kind": "train"}\n'])
def test_other_files_are_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "file").write_bytes(text)
    with pytest.raises(DataError, match="expected a metrics file"):
        Follower(tmp_path / "file").read()


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", [[], [*WORKERS, "deepspark"], [*WORKERS, "sync"]])
def test_run_that_is_over_is_shown_once(
    task: Path, words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    train(*words)
    capsys.readouterr()
    for path in ("run", "run/tiny_metrics.jsonl"):
        assert main(["watch", path]) == 0
        found = capsys.readouterr().out.splitlines()
        assert found[0].split()[0] == "tiny"
        assert found[0].rstrip().endswith(" done")
        assert found[2].startswith("iteration 40 of 40 ")
        assert bool([line for line in found if line.startswith("worker")]) == bool(words)


MISSING: list[Any] = [
    ("nothing", "nothing: no such run"),
    ("empty", "empty: expected exactly one file"),
]


@pytest.mark.parametrize(("path", "message"), MISSING)
def test_run_that_is_not_there_is_an_error(
    tmp_path: Path,
    path: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["watch", path, "--wait", "0.1"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_run_that_is_yet_to_come_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write() -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run/new_metrics.jsonl").write_text(lines(RUN))

    timer = threading.Timer(0.2, write)
    timer.start()
    try:
        assert main(["watch", str(tmp_path / "run"), "--wait", "60"]) == 0
    finally:
        timer.join()
    assert capsys.readouterr().out.startswith("CIFAR10_quick")


def test_missing_package_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["watch", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err == "error: torrefy watch needs rich: pip install 'torrefy[watch]'\n"
    )


def watching(path: Path, terminal: int) -> subprocess.Popen[bytes]:
    """Start `torrefy watch` in a terminal."""
    # What is started in a shell's background ignores SIGINT, and so does what that starts.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from trainer.cli import main; sys.exit(main())"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, "watch", str(path)],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "90", "LINES": "40"},
        stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
    )  # fmt: skip


class Screen:
    """What was written to a terminal so far."""

    def __init__(self, master: int) -> None:
        self._master, self.text = master, ""

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + 120
        while words not in self.text:
            assert time.monotonic() < deadline, f"no {words!r} in {self.text!r}"
            if select.select([self._master], [], [], 1)[0]:
                self.text += os.read(self._master, 65536).decode(errors="replace")


@pytest.mark.parametrize("way", ["end", "interrupt"])
def test_live_view_follows_the_run_until_it_ends_or_is_left(tmp_path: Path, way: str) -> None:
    path = tmp_path / "tiny_metrics.jsonl"
    path.write_text(lines(RUN[:-1]))
    master, terminal = pty.openpty()
    process = watching(path, terminal)
    os.close(terminal)
    try:
        screen = Screen(master)
        screen.wait_for("iteration 8,300 of 20,000")
        with path.open("a") as file:
            file.write(lines(RUN[-1:]))
        screen.wait_for("iteration 8,400 of 20,000")
        if way == "end":
            with path.open("a") as file:
                file.write(lines([event("end", 20_000, 161.0)]))
            screen.wait_for("ended at iteration 20,000")
        else:
            process.send_signal(2)
        screen.wait_for("\x1b[?1049l")  # back from the terminal's other screen
        screen.wait_for("lost: worker 1")
        assert process.wait(timeout=60) == 0
        assert "Traceback" not in screen.text
    finally:
        process.kill()
        process.wait(timeout=30)
        os.close(master)
