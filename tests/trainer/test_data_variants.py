"""Sets made of other sets: pairs of MNIST's images, and training images with a border."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from leveldb_databases import entries
from numpy.typing import NDArray
from test_data_sets import make_cifar10, make_mnist, small

from trainer.cli import main
from trainer.commands import data as command
from trainer.data.datasets import CIFAR10, prepare, siamese
from trainer.data.datum import decode_datum, parse_datum
from trainer.data.mean_file import read_mean
from trainer.data.siamese import siamese_pairs
from trainer.errors import UsageError


def images(database: Path, backend: str) -> tuple[list[int], NDArray[np.uint8]]:
    datums = [parse_datum(value) for _, value in entries(database, backend)]
    pictures = [decode_datum(datum).astype(np.uint8) for datum in datums]
    return [datum.label for datum in datums], np.stack(pictures)


def test_siamese_pairs_are_two_images_and_whether_they_match(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = make_mnist(tmp_path / "source"), tmp_path / "out"
    assert main(["data", "siamese", "--out", str(out), "--from", str(source)]) == 0
    assert f"{out}: siamese made in " in capsys.readouterr().out
    main(["data", "mnist", "--out", str(out), "--from", str(source)])
    for part, count in (("train", 5), ("test", 3)):
        labels, singles = images(out / f"mnist_{part}_lmdb", "lmdb")
        matches, pairs = images(out / f"mnist_siamese_{part}_leveldb", "leveldb")
        assert pairs.shape == (count, 2, 28, 28)
        keys = [key for key, _ in entries(out / f"mnist_siamese_{part}_leveldb")]
        assert keys == [b"%08d" % number for number in range(count)]
        for match, pair in zip(matches, pairs, strict=True):
            found = [
                labels[next(n for n, one in enumerate(singles[:, 0]) if (one == half).all())]
                for half in pair
            ]
            assert match == (found[0] == found[1])


def test_pairs_are_drawn_from_all_images() -> None:
    singles = [(number % 10, bytes([number])) for number in range(200)]
    pairs = list(siamese_pairs(singles, 4, 0))
    assert len(pairs) == 200
    assert 0.03 < np.mean([label for label, _ in pairs]) < 0.2
    for half in (0, 1):
        assert len({pixels[half] for _, pixels in pairs}) > 100
    assert all(label == (pair[0] % 10 == pair[1] % 10) for label, pair in pairs)
    assert pairs == list(siamese_pairs(singles, 4, 0))
    assert pairs != list(siamese_pairs(singles, 5, 0))
    assert pairs != list(siamese_pairs(singles, 4, 1))


def test_another_seed_does_not_mix_with_the_first(tmp_path: Path) -> None:
    source, out = make_mnist(tmp_path / "source"), tmp_path / "out"
    assert len(prepare(siamese(0), out, source)) == 2
    assert prepare(siamese(0), out, source) == []
    shutil.rmtree(out / "mnist_siamese_test_leveldb")
    with pytest.raises(UsageError, match=r"belongs to siamese pairs of mnist \(seed 0\), not to"):
        prepare(siamese(1), out, source)


@pytest.fixture
def small_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command.IMAGE_SETS, "cifar10", small(CIFAR10))


def pad_cifar10(out: Path, source: Path, pad: str) -> int:
    return main(["data", "cifar10", "--pad", pad, "--out", str(out), "--from", str(source)])


@pytest.mark.usefixtures("small_cifar10")
def test_training_images_get_a_border_of_the_mean_colour(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = make_cifar10(tmp_path / "source"), tmp_path / "out"
    assert pad_cifar10(out, source, "4") == 0
    names = {"cifar10_train_lmdb", "cifar10_train_pad4_lmdb", "cifar10_test_lmdb"}
    assert names < {file.name for file in out.iterdir()}
    labels, plain = images(out / "cifar10_train_lmdb", "lmdb")
    padded_labels, padded = images(out / "cifar10_train_pad4_lmdb", "lmdb")
    assert padded_labels == labels
    assert padded.shape == (len(labels), 3, 40, 40)
    np.testing.assert_array_equal(padded[:, :, 4:-4, 4:-4], plain)
    means = read_mean(out / "mean.binaryproto").astype(np.float64).mean(axis=(1, 2))
    colour = np.rint(means)[None, :, None, None]
    for border in (padded[:, :, :4], padded[:, :, -4:], padded[..., :4], padded[..., -4:]):
        assert (border == colour).all()
    assert images(out / "cifar10_test_lmdb", "lmdb")[1].shape[2:] == (32, 32)
    keys = [key for key, _ in entries(out / "cifar10_train_pad4_lmdb", "lmdb")]
    assert keys == [key for key, _ in entries(out / "cifar10_train_lmdb", "lmdb")]
    text = " ".join(f"mean_value: {mean:g}" for mean in means)
    assert capsys.readouterr().out.endswith(f"channel means: {text}\n")


@pytest.mark.usefixtures("small_cifar10")
def test_borders_of_several_widths_lie_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = make_cifar10(tmp_path / "source"), tmp_path / "out"
    for pad in ("4", "1"):
        pad_cifar10(out, source, pad)
    capsys.readouterr()
    assert images(out / "cifar10_train_pad1_lmdb", "lmdb")[1].shape[2:] == (34, 34)
    assert pad_cifar10(out, source, "4") == 0
    assert f"{out}: cifar10 already there\n" in capsys.readouterr().out


@pytest.mark.usefixtures("small_cifar10")
def test_a_border_of_another_sets_images_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = make_cifar10(tmp_path / "source"), tmp_path / "out"
    pad_cifar10(out, source, "4")
    record = out / "torrefy_data.json"
    origins = json.loads(record.read_text())
    origins["cifar10_train_pad4_lmdb"] = "shapes"
    record.write_text(json.dumps(origins))
    assert pad_cifar10(out, source, "4") == 2
    assert "cifar10_train_pad4_lmdb belongs to shapes, not to cifar10" in capsys.readouterr().err


def test_shapes_can_have_a_border_too(tmp_path: Path) -> None:
    flags = ["--train", "20", "--test", "10", "--pad", "3"]
    assert main(["data", "shapes", "--out", str(tmp_path), *flags]) == 0
    assert images(tmp_path / "cifar10_train_pad3_lmdb", "lmdb")[1].shape == (20, 3, 38, 38)


@pytest.mark.parametrize("flags", [["cifar10", "--pad", "0"], ["mnist", "--pad", "4"]])
def test_borders_that_cannot_be_are_refused(flags: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"2"):
        main(["data", *flags, "--out", str(tmp_path)])
