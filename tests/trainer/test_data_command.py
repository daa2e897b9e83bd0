"""`torrefy data` and the choice between CIFAR-10 and its stand-in."""

import logging
import shutil
from functools import partial
from pathlib import Path

import pytest
from test_data_sets import make_cifar10, make_mnist, small

from trainer.cli import main
from trainer.commands import data as command
from trainer.data import auto, datasets
from trainer.data.datasets import CIFAR10
from trainer.data.download import DownloadError
from trainer.data.shapes import write_shapes

SHAPES = "shapes (seed 0, 20 + 10 images)"


def test_mnist_is_made_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = make_mnist(tmp_path / "source"), tmp_path / "out"
    command_line = ["data", "mnist", "--out", str(out), "--from", str(source)]
    assert main(command_line) == 0
    train, test, summary = capsys.readouterr().out.splitlines()
    assert train.startswith(f"{out}/mnist_train_lmdb: 0.0 MB")
    assert test.startswith(f"{out}/mnist_test_lmdb: 0.0 MB")
    assert summary.startswith(f"{out}: mnist made in ")
    assert main(command_line) == 0
    assert capsys.readouterr().out == f"{out}: mnist already there\n"


def test_shapes_are_made_as_many_as_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = ["--train", "20", "--test", "10"]
    assert main(["data", "shapes", "--out", str(tmp_path), "--seed", "0", *counts]) == 0
    assert "shapes made in" in capsys.readouterr().out
    assert write_shapes(tmp_path, 0, 20, 10) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train", "0"], "argument --train: expected a number from 1 to 100000; got 0"),
        (["--test", "100001"], "argument --test: expected a number from 1 to 100000"),
        (["--seed", "-1"], "argument --seed: expected"),
        (["--see", "1"], "unrecognized arguments"),
    ],
)
def test_wrong_flags_end_with_2(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"2"):
        main(["data", "shapes", "--out", str(tmp_path), *flags])
    assert message in capsys.readouterr().err


def test_errors_end_in_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "cifar10", "--out", str(tmp_path), "--from", str(tmp_path)]) == 1
    assert "expected the publishers' files of cifar10" in capsys.readouterr().err
    write_shapes(tmp_path, 0, 20, 10)
    assert main(["data", "cifar10", "--out", str(tmp_path)]) == 2
    assert f"belongs to {SHAPES}, not to cifar10" in capsys.readouterr().err


@pytest.fixture
def small_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `auto` work on small sets, without a network and without TORREFY_DATA."""

    def no_network(*_: object) -> None:
        raise DownloadError("no network")

    monkeypatch.delenv("TORREFY_DATA", raising=False)
    monkeypatch.setattr(datasets, "fetch", no_network)
    monkeypatch.setattr(auto, "CIFAR10", small(CIFAR10))
    monkeypatch.setattr(auto, "write_shapes", partial(write_shapes, train=20, test=10))


@pytest.mark.usefixtures("small_sets")
def test_auto_takes_the_folder_that_the_variable_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    make_cifar10(source / "cifar10")
    monkeypatch.setenv("TORREFY_DATA", str(source))
    assert main(["data", "auto", "--out", str(out)]) == 0
    assert f"{out}: cifar10, from {source} (" in capsys.readouterr().out
    assert command.prepare_cifar10(out) == "cifar10, there already"


@pytest.mark.usefixtures("small_sets")
def test_auto_draws_a_stand_in_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORREFY_DATA", str(tmp_path / "gone"))
    caplog.set_level(logging.WARNING)
    found = command.prepare_cifar10(tmp_path)
    assert found == f"{SHAPES} standing in for cifar10, which could not be downloaded"
    assert "TORREFY_DATA: " in caplog.messages[0]
    assert "no network" in caplog.messages[1]
    assert command.prepare_cifar10(tmp_path) == f"{SHAPES}, there already"


@pytest.mark.usefixtures("small_sets")
def test_auto_finishes_a_stand_in_that_was_begun(tmp_path: Path) -> None:
    command.prepare_cifar10(tmp_path)
    shutil.rmtree(tmp_path / "cifar10_test_lmdb")
    make_cifar10(tmp_path / "cifar10")
    assert command.prepare_cifar10(tmp_path) == f"{SHAPES}, now complete"
    assert CIFAR10.layout.is_complete(tmp_path)


@pytest.mark.usefixtures("small_sets")
def test_auto_downloads_where_there_is_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "fetch", lambda _, folder: make_cifar10(folder / "cifar10"))
    assert command.prepare_cifar10(tmp_path) == "cifar10, downloaded"
    assert CIFAR10.layout.origin(tmp_path) == "cifar10"
