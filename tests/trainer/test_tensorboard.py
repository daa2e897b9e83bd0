"""Event files of TensorBoard hold what the metrics file holds; read by TensorBoard's own reader."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import WORKERS, metrics, train, write_task

from trainer.cli import train_main
from trainer.errors import TrainerError
from trainer.tensorboard import TensorBoardFiles

pytest.importorskip("tensorboard")

FOLDER = "run/tiny_tensorboard"
EXCHANGED = {
    *("loss", "lr", "compute_s", "exchange_s", "staleness", "sent_bytes", "received_bytes"),
}


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path)
    return tmp_path


def events(folder: str | Path) -> Any:
    """Return all that TensorBoard would show."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def scalars(found: Any, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in found.Scalars(tag)]


def texts(found: Any, tag: str) -> list[str]:
    tensors = found.Tensors(f"{tag}/text_summary")
    return [event.tensor_proto.string_val[0].decode() for event in tensors]


def recorded(task: Path, kind: str, name: str, **wanted: int) -> list[tuple[int, float]]:
    return [
        (record["iteration"], pytest.approx(record[name], rel=1e-6))
        for record in metrics(task)
        if record["kind"] == kind and all(record[key] == value for key, value in wanted.items())
    ]


def test_curves_of_one_process_are_those_of_the_metrics_file(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("--tensorboard")
    assert f"tensorboard {FOLDER}" in capsys.readouterr().out
    found = events(FOLDER)
    tags = set(found.Tags()["scalars"])
    assert tags == {"train/loss", "train/lr", "test/accuracy", "test/loss"}
    for tag in tags:
        curve = recorded(task, *tag.split("/"))
        assert len(curve) >= 3
        assert scalars(found, tag) == curve
    (start,) = texts(found, "start")
    assert "| net | tiny |" in start
    assert "| max_iter | 40 |" in start
    assert [text.splitlines()[2] for text in texts(found, "events")] == [
        "| event | begin |",
        "| event | end |",
    ]


@pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])
def test_every_worker_has_curves_of_its_own(task: Path, strategy: str) -> None:
    train(*WORKERS, strategy, "--sync-interval", "4", "--tensorboard", "events")
    assert not Path(FOLDER).exists()
    found = events("events")
    tags = set(found.Tags()["scalars"])
    own = {f"workers/{rank}/{name}" for rank in (0, 1) for name in EXCHANGED}
    assert own <= tags
    assert {"test/accuracy", "test/loss"} == tags - own
    for tag in own:
        _, rank, name = tag.split("/")
        assert scalars(found, tag) == recorded(task, "exchange", name, rank=int(rank))


def test_steps_that_a_resumed_run_does_again_replace_the_old(task: Path) -> None:
    train("--tensorboard")
    train("--tensorboard", "--snapshot", "run/tiny_iter_20.solverstate")
    found = events(FOLDER)
    assert [step for step, _ in scalars(found, "train/loss")] == [0, 10, 20, 30, 40]
    assert [step for step, _ in scalars(found, "test/accuracy")] == [0, 20, 40]
    assert len(texts(found, "start")) == 2


def test_new_run_replaces_an_old_one(task: Path) -> None:
    train("--tensorboard")
    train("--tensorboard", "--seed", "6")
    found = events(FOLDER)
    assert scalars(found, "train/loss") == recorded(task, "train", "loss")
    assert "| seed | 6 |" in texts(found, "start")[-1]


def test_further_test_nets_are_told_apart_and_what_is_missing_is_left_out(tmp_path: Path) -> None:
    with closing(TensorBoardFiles(tmp_path, 0)) as files:
        files.write("test", 3, {"net": 0, "accuracy": 0.25})
        files.write("test", 3, {"net": 1, "accuracy": 0.5})
        measured = dict.fromkeys(EXCHANGED, 2.0) | {"loss": None}
        files.write("exchange", 4, {"rank": 1, "center_loss": None, **measured})
    found = events(tmp_path)
    assert scalars(found, "test/accuracy") == [(3, 0.25)]
    assert scalars(found, "test_1/accuracy") == [(3, 0.5)]
    assert "workers/1/lr" in found.Tags()["scalars"]
    assert "workers/1/loss" not in found.Tags()["scalars"]


def test_missing_package_is_told_before_anything_starts(
    task: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    words = ["--solver", "tiny_solver.prototxt", "--out", "run", "--tensorboard"]
    assert train_main(words) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: --tensorboard needs the package tensorboard: pip install")
    assert not (task / "run").exists()


def test_folder_that_cannot_be_made_is_an_error(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (task / "file").touch()
    words = ["--solver", "tiny_solver.prototxt", "--out", "run", "--tensorboard", "file/events"]
    assert train_main(words) == 1
    assert "error: file/events: cannot write event files: " in capsys.readouterr().err


@pytest.fixture
def full_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TensorBoardFiles]:
    files = TensorBoardFiles(tmp_path, 0)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with closing(files):
        monkeypatch.setattr(files._writer, "add_scalar", refuse)
        yield files


def test_full_disk_is_an_error(full_files: TensorBoardFiles) -> None:
    with pytest.raises(TrainerError, match="cannot write event files: No space left on device"):
        full_files.write("train", 3, {"loss": 1.0})


def test_run_without_the_flag_does_not_load_the_package(task: Path) -> None:
    code = (
        "import sys; from trainer.cli import train_main;"
        "train_main(['--solver', 'tiny_solver.prototxt', '--out', 'run']);"
        "print([name for name in sys.modules if name.split('.')[0] == 'tensorboard'])"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}); {code}"],
        cwd=task, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert result.stdout.splitlines()[-1] == "[]"
