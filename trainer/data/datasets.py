"""CIFAR-10, CIFAR-100 and MNIST: from their publishers' files to Caffe's databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from trainer.data.cifar import CIFAR_SHAPE, cifar_images
from trainer.data.download import Download, fetch
from trainer.data.entries import Entry, datum_entries
from trainer.data.layout import Layout
from trainer.data.mnist import MNIST_SHAPE, mnist_images
from trainer.data.published import Publication, PublishedFiles
from trainer.data.siamese import SIAMESE_SHAPE, siamese_pairs


@dataclass(frozen=True)
class ImageSet:
    """A published data set and how its databases are made.

    Attributes:
        publication: Its files.
        layout: What is written.
        train: Converts the training files.
        test: Converts the test files.
    """

    publication: Publication
    layout: Layout
    train: Callable[[PublishedFiles], Iterator[Entry]]
    test: Callable[[PublishedFiles], Iterator[Entry]]


def prepare(image_set: ImageSet, out: Path, source: Path | None = None) -> list[Path]:
    """Write the databases of a set, and its mean file, into folder `out`.

    Args:
        image_set: One of `IMAGE_SETS`.
        out: What is there already is not written again.
        source: Folder with the publishers' files; None downloads them into `out`/download.

    Returns:
        What was written.

    Raises:
        UsageError: `out` holds another set.
        DownloadError: The files cannot be downloaded.
        DataError: They are missing or damaged, or writing failed.
    """
    layout, origin = image_set.layout, image_set.publication.name
    layout.check(out, origin)
    if layout.is_complete(out):
        return []
    if source is None:
        source = out / "download"
        for download in image_set.publication.downloads:
            fetch(download, source)
    files = PublishedFiles(source, image_set.publication)
    return layout.write(
        out, origin, train=lambda: image_set.train(files), test=lambda: image_set.test(files)
    )


def _cifar_entries(
    files: PublishedFiles, *, names: tuple[str, ...], label_bytes: int, records: int
) -> Iterator[Entry]:
    parts = (cifar_images(files.read(name), name, label_bytes, records) for name in names)
    return datum_entries(chain.from_iterable(parts), CIFAR_SHAPE, key_digits=5)


def _mnist_entries(files: PublishedFiles, *, part: str) -> Iterator[Entry]:
    return datum_entries(_mnist_part(files, part), MNIST_SHAPE, key_digits=8)


def _siamese_entries(files: PublishedFiles, *, part: str, seed: int) -> Iterator[Entry]:
    images = list(_mnist_part(files, part))
    stream = ("train", "t10k").index(part)
    return datum_entries(siamese_pairs(images, seed, stream), SIAMESE_SHAPE, key_digits=8)


def _mnist_part(files: PublishedFiles, part: str) -> Iterator[tuple[int, bytes]]:
    images, labels = (files.read(f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    return mnist_images(images, labels, part)


_TORONTO = ("https://www.cs.toronto.edu/~kriz", "https://cave.cs.toronto.edu/kriz")
_CIFAR10_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
_MNIST_MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}

CIFAR10 = ImageSet(
    Publication(
        name="cifar10",
        folders=("cifar-10-batches-bin", "cifar10"),
        files=(*_CIFAR10_TRAIN, "test_batch.bin"),
        downloads=(
            Download("cifar-10-binary.tar.gz", _TORONTO, "c32a1d4ab5d03f1284b67883e8d87530"),
        ),
    ),
    Layout("cifar10", has_mean=True),
    train=partial(_cifar_entries, names=_CIFAR10_TRAIN, label_bytes=1, records=10_000),
    test=partial(_cifar_entries, names=("test_batch.bin",), label_bytes=1, records=10_000),
)

CIFAR100 = ImageSet(
    Publication(
        name="cifar100",
        folders=("cifar-100-binary", "cifar100"),
        files=("train.bin", "test.bin"),
        downloads=(
            Download("cifar-100-binary.tar.gz", _TORONTO, "03b5dce01913d631647c71ecec9e9cb8"),
        ),
    ),
    Layout("cifar100", has_mean=True),
    train=partial(_cifar_entries, names=("train.bin",), label_bytes=2, records=50_000),
    test=partial(_cifar_entries, names=("test.bin",), label_bytes=2, records=10_000),
)

MNIST = ImageSet(
    Publication(
        name="mnist",
        folders=("mnist",),
        files=tuple(_MNIST_MD5),
        downloads=tuple(
            Download(f"{name}.gz", _MNIST_MIRRORS, md5) for name, md5 in _MNIST_MD5.items()
        ),
    ),
    Layout("mnist", has_mean=False),
    train=partial(_mnist_entries, part="train"),
    test=partial(_mnist_entries, part="t10k"),
)


def siamese(seed: int) -> ImageSet:
    """Return the set of pairs of MNIST's images; equal seeds pair equally."""
    return ImageSet(
        replace(MNIST.publication, name=f"siamese pairs of mnist (seed {seed})"),
        Layout("mnist_siamese", has_mean=False, backend="leveldb"),
        train=partial(_siamese_entries, part="train", seed=seed),
        test=partial(_siamese_entries, part="t10k", seed=seed),
    )


IMAGE_SETS = {"cifar10": CIFAR10, "cifar100": CIFAR100, "mnist": MNIST}
