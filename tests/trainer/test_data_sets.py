"""CIFAR-10, CIFAR-100 and MNIST from their publishers' files, in small."""

import gzip
import shutil
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from image_databases import raw_datum

from prototxt_parser.proto import caffe_pb2
from trainer.data import datasets
from trainer.data.datasets import CIFAR10, CIFAR100, MNIST, ImageSet, prepare
from trainer.data.lmdb_reader import LmdbReader
from trainer.errors import DataError, UsageError

RECORDS = 4
CIFAR10_FILES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


def small(image_set: ImageSet) -> ImageSet:
    """Return a CIFAR set of which every file has RECORDS records."""
    train, test = image_set.train, image_set.test
    assert isinstance(train, partial)
    assert isinstance(test, partial)
    return replace(
        image_set, train=partial(train, records=RECORDS), test=partial(test, records=RECORDS)
    )


def random_bytes(seed: int, count: int) -> bytes:
    return np.random.default_rng(seed).bytes(count)


def cifar_file(seed: int, label_bytes: int) -> bytes:
    return b"".join(
        bytes([99] * (label_bytes - 1) + [(seed + number) % 10]) + random_bytes(seed + number, 3072)
        for number in range(RECORDS)
    )


def make_cifar10(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(CIFAR10_FILES):
        (folder / name).write_bytes(cifar_file(10 * number, 1))
    return folder


def make_mnist(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 5), ("t10k", 3)):
        pixels = random_bytes(count, count * 784)
        images = struct.pack(">IIII", 2051, count, 28, 28) + pixels
        labels = struct.pack(">II", 2049, count) + bytes(range(count))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    return folder


def entries(database: Path) -> list[tuple[bytes, bytes]]:
    reader = LmdbReader(database)
    found = []
    for _ in range(reader.count):
        found.append((reader.key, reader.value))
        reader.advance()
    reader.close()
    return found


def expected_cifar(names: list[str], folder: Path, label_bytes: int) -> list[tuple[bytes, bytes]]:
    content = b"".join((folder / name).read_bytes() for name in names)
    records = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + 3072)
    return [
        (b"%05d" % number, raw_datum(row[label_bytes:].reshape(3, 32, 32), row[label_bytes - 1]))
        for number, row in enumerate(records)
    ]


def test_cifar10_is_written_as_caffes_scripts_do(tmp_path: Path) -> None:
    source, out = make_cifar10(tmp_path / "source"), tmp_path / "out"
    written = prepare(small(CIFAR10), out, source)
    names = ["cifar10_train_lmdb", "cifar10_test_lmdb", "mean.binaryproto"]
    assert written == [out / name for name in names]
    assert entries(out / names[0]) == expected_cifar(CIFAR10_FILES[:5], source, 1)
    assert entries(out / names[1]) == expected_cifar(CIFAR10_FILES[5:], source, 1)
    mean = caffe_pb2.BlobProto.FromString((out / names[2]).read_bytes())
    assert (mean.num, mean.channels, mean.height, mean.width) == (1, 3, 32, 32)
    assert not mean.HasField("shape")
    content = b"".join((source / name).read_bytes() for name in CIFAR10_FILES[:5])
    pixels = np.frombuffer(content, np.uint8).reshape(-1, 3073)[:, 1:]
    np.testing.assert_allclose(mean.data, pixels.mean(axis=0), rtol=1e-6)


def test_cifar100_has_the_fine_labels(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "train.bin").write_bytes(cifar_file(0, 2))
    (source / "test.bin").write_bytes(cifar_file(50, 2))
    prepare(small(CIFAR100), out, source)
    assert entries(out / "cifar100_train_lmdb") == expected_cifar(["train.bin"], source, 2)
    assert entries(out / "cifar100_test_lmdb") == expected_cifar(["test.bin"], source, 2)
    assert (out / "mean.binaryproto").exists()


def test_mnist_is_written_as_caffes_scripts_do(tmp_path: Path) -> None:
    source, out = make_mnist(tmp_path / "source"), tmp_path / "out"
    written = prepare(MNIST, out, source)
    assert written == [out / "mnist_train_lmdb", out / "mnist_test_lmdb"]
    for name, count in (("train", 5), ("test", 3)):
        pixels = np.frombuffer(random_bytes(count, count * 784), np.uint8).reshape(-1, 1, 28, 28)
        assert entries(out / f"mnist_{name}_lmdb") == [
            (b"%08d" % number, raw_datum(image, number)) for number, image in enumerate(pixels)
        ]


def pack_cifar10(folder: Path) -> None:
    with tarfile.open(folder.parent / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(folder, "cifar-10-batches-bin")
    shutil.rmtree(folder)


@pytest.mark.parametrize("place", [".", "cifar-10-batches-bin", "cifar10", "packed"])
def test_the_publishers_files_may_lie_in_several_places(place: str, tmp_path: Path) -> None:
    plain = make_cifar10(tmp_path / "plain")
    folder = make_cifar10(tmp_path / "source" / place)
    if place == "packed":
        pack_cifar10(folder)
    prepare(small(CIFAR10), tmp_path / "out", tmp_path / "source")
    assert entries(tmp_path / "out/cifar10_train_lmdb") == expected_cifar(
        CIFAR10_FILES[:5], plain, 1
    )


def test_single_files_may_be_compressed(tmp_path: Path) -> None:
    plain = make_mnist(tmp_path / "plain")
    packed = tmp_path / "source" / "mnist"
    packed.mkdir(parents=True)
    for file in plain.iterdir():
        (packed / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    prepare(MNIST, tmp_path / "out", tmp_path / "source")
    assert len(entries(tmp_path / "out/mnist_train_lmdb")) == 5


def test_without_a_source_the_files_are_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(download: datasets.Download, folder: Path) -> None:
        assert download.name == "cifar-10-binary.tar.gz"
        pack_cifar10(make_cifar10(folder / "unpacked"))

    monkeypatch.setattr(datasets, "fetch", fetch)
    prepare(small(CIFAR10), tmp_path)
    assert (tmp_path / "download/cifar-10-binary.tar.gz").exists()
    assert len(entries(tmp_path / "cifar10_test_lmdb")) == RECORDS


def test_a_finished_set_is_not_written_again(tmp_path: Path) -> None:
    source, out = make_mnist(tmp_path / "source"), tmp_path / "out"
    prepare(MNIST, out, source)
    shutil.rmtree(source)
    assert prepare(MNIST, out, source) == []


def test_what_is_missing_is_made_good(tmp_path: Path) -> None:
    source, out = make_cifar10(tmp_path / "source"), tmp_path / "out"
    prepare(small(CIFAR10), out, source)
    shutil.rmtree(out / "cifar10_test_lmdb")
    assert prepare(small(CIFAR10), out, source) == [out / "cifar10_test_lmdb"]


def test_a_conversion_that_failed_is_finished_by_the_next(tmp_path: Path) -> None:
    source, out = make_cifar10(tmp_path / "source"), tmp_path / "out"
    (source / "test_batch.bin").write_bytes(b"cut off")
    with pytest.raises(DataError, match=r"test_batch.bin: expected 4 records of 3073 bytes"):
        prepare(small(CIFAR10), out, source)
    assert sorted(path.name for path in out.iterdir()) == [
        "cifar10_train_lmdb",
        "torrefy_data.json",
    ]
    make_cifar10(source)
    assert len(prepare(small(CIFAR10), out, source)) == 2


def test_sets_do_not_mix_in_one_folder(tmp_path: Path) -> None:
    source, out = make_cifar10(tmp_path / "source"), tmp_path / "out"
    make_mnist(source)
    (source / "train.bin").write_bytes(cifar_file(0, 2))
    (source / "test.bin").write_bytes(cifar_file(0, 2))
    prepare(MNIST, out, source)
    prepare(small(CIFAR10), out, source)
    with pytest.raises(UsageError, match=r"mean.binaryproto belongs to cifar10, not to cifar100"):
        prepare(small(CIFAR100), out, source)
    assert not (out / "cifar100_train_lmdb").exists()
    for name in small(CIFAR10).layout.files:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert len(prepare(small(CIFAR100), out, source)) == 3


def test_a_set_made_by_caffe_counts_if_it_is_complete(tmp_path: Path) -> None:
    source, out = make_mnist(tmp_path / "source"), tmp_path / "out"
    prepare(MNIST, out, source)
    (out / "torrefy_data.json").unlink()
    assert prepare(MNIST, out, source) == []
    shutil.rmtree(out / "mnist_test_lmdb")
    with pytest.raises(UsageError, match=r"mnist_train_lmdb belongs to an unfinished set of other"):
        prepare(MNIST, out, source)


def test_an_unreadable_record_is_reported(tmp_path: Path) -> None:
    (tmp_path / "torrefy_data.json").write_text("[1")
    with pytest.raises(UsageError, match=r"torrefy_data.json: cannot be read"):
        prepare(MNIST, tmp_path, make_mnist(tmp_path / "source"))


def test_missing_files_are_named_with_the_places(tmp_path: Path) -> None:
    make_cifar10(tmp_path / "cifar10")
    (tmp_path / "cifar10/data_batch_3.bin").unlink()
    with pytest.raises(DataError) as caught:
        prepare(CIFAR10, tmp_path / "out", tmp_path)
    message = str(caught.value)
    assert "missing data_batch_3.bin." in message
    assert "cifar-10-batches-bin or cifar10" in message
    assert "cifar-10-binary.tar.gz" in message
    assert not (tmp_path / "out").exists()


def change(file: str, edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / file).write_bytes(edit((folder / file).read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            change("train-images-idx3-ubyte", lambda file: file[:3] + b"\0" + file[4:]),
            r"train \(images\): magic number: expected 2051, received 2048",
        ),
        (
            change("train-labels-idx1-ubyte", lambda file: file[:3] + b"\0" + file[4:]),
            r"train \(labels\): magic number: expected 2049, received 2048",
        ),
        (
            change("train-images-idx3-ubyte", lambda file: file[:-1]),
            "train: bytes of images: expected 3936, received 3935",
        ),
        (
            change("train-labels-idx1-ubyte", lambda file: file + b"\0"),
            "train: bytes of labels: expected 13, received 14",
        ),
        (
            change("t10k-labels-idx1-ubyte", lambda file: file[:7] + b"\2" + file[8:]),
            "t10k: number of labels: expected 3, received 2",
        ),
        (
            change("t10k-images-idx3-ubyte", lambda file: file[:15] + b"\1" + file[16:]),
            r"t10k: image size: expected \(28, 28\), received \(28, 1\)",
        ),
        (change("train-images-idx3-ubyte", lambda _: b"x"), "1 bytes are no IDX file"),
    ],
)
def test_damaged_mnist_files_are_refused(
    damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    damage(make_mnist(tmp_path))
    with pytest.raises(DataError, match=message):
        prepare(MNIST, tmp_path / "out", tmp_path)


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "cifar-10-binary.tar.gz"
    pack_cifar10(make_cifar10(tmp_path / "unpacked"))
    whole = archive.read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive"):
        archive.write_bytes(content)
        with pytest.raises(DataError, match=r"tar.gz: cannot be read .*fetch it again"):
            prepare(small(CIFAR10), tmp_path / "out", tmp_path)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(__file__, "data_batch_1.bin.txt")
    with pytest.raises(DataError, match=r"expected a file data_batch_1.bin in it"):
        prepare(small(CIFAR10), tmp_path / "out", tmp_path)


def test_damaged_compressed_files_are_refused(tmp_path: Path) -> None:
    make_mnist(tmp_path)
    file = tmp_path / "t10k-images-idx3-ubyte"
    Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes())[:-9])
    file.unlink()
    with pytest.raises(DataError, match=r"images-idx3-ubyte.gz: cannot be read .*fetch it again"):
        prepare(MNIST, tmp_path / "out", tmp_path)
