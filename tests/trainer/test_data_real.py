"""The real sets, from the folder that TORREFY_DATA names."""

from pathlib import Path

import numpy as np
import pytest
from image_databases import data_layer

from golden_cases import GOLDEN
from trainer.data.datasets import IMAGE_SETS, prepare
from trainer.data.datum import parse_datum
from trainer.data.feed import open_feed
from trainer.data.lmdb_reader import LmdbReader
from trainer.data.mean_file import read_mean

pytestmark = pytest.mark.data


@pytest.mark.parametrize(
    ("name", "train", "classes", "shape"),
    [
        ("cifar10", 50_000, 10, (3, 32, 32)),
        ("cifar100", 50_000, 100, (3, 32, 32)),
        ("mnist", 60_000, 10, (1, 28, 28)),
    ],
)
def test_every_image_of_a_set_is_converted(
    name: str, train: int, classes: int, shape: tuple[int, ...], tmp_path: Path, real_data: Path
) -> None:
    prepare(IMAGE_SETS[name], tmp_path, real_data)
    for part, count in (("train", train), ("test", 10_000)):
        reader = LmdbReader(tmp_path / f"{name}_{part}_lmdb")
        labels = set()
        for _ in range(reader.count):
            datum = parse_datum(reader.value)
            labels.add(datum.label)
            assert (datum.channels, datum.height, datum.width) == shape
            assert len(datum.data) == np.prod(shape)
            reader.advance()
        assert (reader.count, labels) == (count, set(range(classes)))
        reader.close()


def test_the_mean_of_cifar10_is_that_of_caffe(tmp_path: Path, real_data: Path) -> None:
    prepare(IMAGE_SETS["cifar10"], tmp_path, real_data)
    recorded = GOLDEN / "curves/cifar10_quick_300/mean.binaryproto"
    assert (tmp_path / "mean.binaryproto").read_bytes() == recorded.read_bytes()


def test_an_epoch_of_cifar10_has_the_mean_zero(tmp_path: Path, real_data: Path) -> None:
    prepare(IMAGE_SETS["cifar10"], tmp_path, real_data)
    transform = f'mean_file: "{tmp_path}/mean.binaryproto"'
    spec = data_layer(tmp_path / "cifar10_train_lmdb", batch_size=1000, transform=transform)
    feed = open_feed([spec], seed=1)
    total = sum(feed.next()["data"].double().sum(dim=0) for _ in range(50)) / 50_000
    feed.close()
    assert abs(total).max() < 1e-4
    assert read_mean(tmp_path / "mean.binaryproto").shape == total.shape
