"""The drawn stand-in for CIFAR-10."""

import hashlib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from trainer.data.datum import decode_datum, parse_datum
from trainer.data.lmdb_reader import LmdbReader
from trainer.data.mean_file import read_mean
from trainer.data.shapes import CLASSES, draw_images, write_shapes
from trainer.errors import UsageError


def digest(seed: int, part: int, count: int) -> str:
    total = hashlib.sha256()
    for label, pixels in draw_images(seed, part, count):
        total.update(bytes([label]) + pixels)
    return total.hexdigest()


def test_images_are_the_same_on_every_machine() -> None:
    assert digest(0, 0, 1203) == (
        "35f665cb1039efa3feb1744a47accfb8048b72fb9ebae5d9eaafc4b506dddcca"
    )


def test_seeds_and_parts_differ() -> None:
    assert len({digest(seed, part, 10) for seed in (0, 1, 2**40) for part in (0, 1)}) == 6


def test_classes_are_equally_frequent_and_shuffled() -> None:
    labels = [label for label, _ in draw_images(0, 0, 1003)]
    assert len(CLASSES) == 10
    assert set(Counter(labels).values()) == {100, 101}
    assert labels != sorted(labels)
    assert max(Counter(pairwise(labels)).values()) < 40  # of about 10


def test_no_image_comes_twice() -> None:
    images = [pixels for part in (0, 1) for _, pixels in draw_images(0, part, 600)]
    assert len(set(images)) == 1200


def test_labels_belong_to_the_shapes() -> None:
    # The area that a shape covers differs by class: were labels and shapes mixed up, it would not.
    pictures = np.stack(
        [
            np.frombuffer(pixels, np.uint8).reshape(3, 32, 32)
            for _, pixels in draw_images(0, 0, 2000)
        ]
    )
    labels = np.array([label for label, _ in draw_images(0, 0, 2000)])
    border = np.concatenate([pictures[:, :, 0], pictures[:, :, -1]], axis=2).mean(axis=2)
    distance = abs(pictures - border[:, :, None, None]).sum(axis=1)
    area = (distance > 120).mean(axis=(1, 2))
    by_class = {name: area[labels == label].mean() for label, name in enumerate(CLASSES)}
    assert by_class["disc"] > by_class["ring"] + 0.03
    assert by_class["square"] > by_class["frame"] + 0.03
    assert by_class["disc"] > by_class["bar"] + 0.05


def test_the_set_has_the_layout_of_cifar10(tmp_path: Path) -> None:
    written = write_shapes(tmp_path, seed=3, train=120, test=30)
    names = ["cifar10_train_lmdb", "cifar10_test_lmdb", "mean.binaryproto"]
    assert [path.name for path in written] == names
    drawn = []
    for part, (name, count) in enumerate(zip(names, (120, 30), strict=False)):
        reader = LmdbReader(tmp_path / name)
        assert (reader.count, reader.key) == (count, b"00000")
        for label, pixels in draw_images(3, part, count):
            datum = parse_datum(reader.value)
            assert (datum.label, datum.data) == (label, pixels)
            assert decode_datum(datum).shape == (3, 32, 32)
            reader.advance()
            drawn.append(pixels)
        reader.close()
    mean = np.frombuffer(b"".join(drawn[:120]), np.uint8).reshape(-1, 3, 32, 32).mean(axis=0)
    np.testing.assert_allclose(read_mean(tmp_path / names[2]), mean, rtol=1e-6)


def test_another_set_in_the_folder_is_kept(tmp_path: Path) -> None:
    write_shapes(tmp_path, seed=3, train=20, test=10)
    assert write_shapes(tmp_path, seed=3, train=20, test=10) == []
    message = r"belongs to shapes \(seed 3, 20 \+ 10 images\), not to shapes \(seed 4, 20"
    with pytest.raises(UsageError, match=message):
        write_shapes(tmp_path, seed=4, train=20, test=10)
