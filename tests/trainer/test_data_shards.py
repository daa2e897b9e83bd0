"""Workers with data of their own: `{rank}` in the folder of the data."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from data_layers import layer, opened, save_picture
from image_databases import data_layer, images, make_image_lmdb, make_lmdb, raw_datum

from prototxt_parser.data_spec import DataSpec
from tiny_task import enumerate_datums, lone_worker, make_plan, run_plan
from trainer.data.database import write_database
from trainer.data.mean_file import write_mean
from trainer.data.paths import find_data
from trainer.errors import DataError, TrainerError


def make_shard(folder: Path, labels: list[int]) -> None:
    """Write a database whose images have these labels, in a worker's folder."""
    pictures = images(len(labels))
    entries = [raw_datum(picture, label) for picture, label in zip(pictures, labels, strict=True)]
    make_lmdb(folder / "train_lmdb", entries)


def labels(spec: DataSpec, batches: int, **settings: object) -> list[list[int]]:
    with opened(spec, **settings) as feed:
        return [feed.next()["label"].int().tolist() for _ in range(batches)]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Return the folder of two workers: one with five entries, one with three."""
    make_shard(tmp_path / "shard-0", [10, 11, 12, 13, 14])
    make_shard(tmp_path / "shard-1", [20, 21, 22])
    return tmp_path / "shard-{rank}"


def test_each_worker_reads_all_of_its_own_folder_and_wraps(shards: Path) -> None:
    make_image_lmdb(shards.parent / "train_lmdb", images(9))  # which the net names, and is there
    spec = data_layer(shards.parent / "train_lmdb")
    two = {"world_size": 2, "data_dir": shards}
    assert labels(spec, 2, rank=0, **two) == [[10, 11, 12, 13], [14, 10, 11, 12]]
    assert labels(spec, 2, rank=1, **two) == [[20, 21, 22, 20], [21, 22, 20, 21]]


def test_a_position_in_a_shard_is_found_again(shards: Path) -> None:
    settings = {"rank": 1, "world_size": 2, "data_dir": shards}
    with opened(data_layer("train_lmdb"), **settings) as feed:
        feed.next()
        state = feed.state_dict()
        expected = feed.next()["label"].tolist()
    with opened(data_layer("train_lmdb"), **settings) as feed:
        feed.load_state_dict(state)
        assert feed.next()["label"].tolist() == expected


def test_workers_draw_different_random_numbers(tmp_path: Path) -> None:
    for rank in range(2):
        make_image_lmdb(tmp_path / f"{rank}" / "train_lmdb", images(6))
    spec = data_layer("train_lmdb", transform="crop_size: 3 mirror: true")
    read = []
    for rank in range(2):
        with opened(spec, rank=rank, world_size=2, data_dir=tmp_path / "{rank}") as feed:
            read.append(feed.next()["data"])
    assert not torch.equal(*read)


def test_the_driver_looks_where_the_net_says_and_then_at_worker_0(shards: Path) -> None:
    spec = data_layer("train_lmdb", phase="TEST", batch_size=2)
    assert labels(spec, 1, rank=1, world_size=2, data_dir=shards) == [[10, 11]]
    named = make_image_lmdb(shards.parent / "train_lmdb", images(9))
    spec = data_layer(named, phase="TEST", batch_size=2)
    assert labels(spec, 1, data_dir=shards) == [[0, 1]]
    assert find_data("train_lmdb", shards) == shards.parent / "shard-0" / "train_lmdb"


def test_a_mean_file_is_found_in_the_workers_folder(shards: Path) -> None:
    mean = np.full((3, 5, 7), 8, dtype=np.float32)
    write_mean(shards.parent / "shard-1" / "mean.binaryproto", mean)
    spec = data_layer("train_lmdb", transform='mean_file: "mean.binaryproto"')
    with opened(spec, rank=1, world_size=2, data_dir=shards) as feed:
        np.testing.assert_array_equal(feed.next()["data"][:3], images(3) - mean)


def test_lists_and_their_images_come_from_the_workers_folder(tmp_path: Path) -> None:
    for rank in range(2):
        folder = tmp_path / f"{rank}"
        for number, pixels in enumerate(images(3)):
            save_picture(folder / f"{number}.png", pixels)
        (folder / "list.txt").write_text("".join(f"{n}.png {n + 10 * rank}\n" for n in range(3)))
    spec = layer("ImageData", 'image_data_param { source: "far/list.txt" batch_size: 2 }')
    settings = {"rank": 1, "world_size": 2, "data_dir": tmp_path / "{rank}"}
    assert labels(spec, 2, **settings) == [[10, 11], [12, 10]]


def test_a_missing_shard_names_the_workers_path(shards: Path) -> None:
    named = make_image_lmdb(shards.parent / "train_lmdb", images(9))
    expected = shards.parent / "shard-2" / "train_lmdb"
    message = rf"images.*this worker expects its shard at {expected}, .* or take \{{rank\}} out"
    with pytest.raises(DataError, match=message):
        labels(data_layer(named), 1, rank=2, world_size=3, data_dir=shards)


def test_an_empty_shard_names_the_workers_path(shards: Path) -> None:
    empty = make_lmdb(shards.parent / "shard-2" / "train_lmdb", [])
    with pytest.raises(DataError, match=rf"{empty}: the database is empty; convert the images"):
        labels(data_layer("train_lmdb"), 1, rank=2, world_size=3, data_dir=shards)


def tiny_shards(folder: Path, counts: Mapping[int, int]) -> Path:
    """Write a database for each worker of the tiny task, and what the driver tests for worker 0."""
    random = np.random.default_rng(3)
    for name, rank, count in [
        *(("train_lmdb", *pair) for pair in counts.items()),
        ("test_lmdb", 0, 16),
    ]:
        pictures = random.integers(0, 200, size=(count, 2, 3, 1), dtype=np.uint8)
        entries = enumerate_datums(pictures, random.integers(0, 4, size=count))
        write_database(folder / f"shard-{rank}" / name, entries)
    return folder / "shard-{rank}"


def test_a_run_of_two_workers_averages_what_each_learns_from_its_shard(tmp_path: Path) -> None:
    shards = tiny_shards(tmp_path, {0: 20, 1: 3})  # fewer than a batch
    plan = make_plan("sparknet", 2, shards, max_iter=8, sync_interval=4)
    outcome = run_plan(plan, shards, snapshot_prefix=str(tmp_path / "tiny"))
    total = torch.zeros_like(outcome.parameters)
    for rank in range(2):
        alone = lone_worker(tmp_path / f"shard-{rank}", 0, 1)
        alone.step(4)
        total += alone.net.flat.data
        alone.close()
    torch.testing.assert_close(outcome.parameters, total / 2, rtol=1e-6, atol=0)


def test_a_run_without_the_shard_of_a_worker_ends_with_its_path(tmp_path: Path) -> None:
    shards = tiny_shards(tmp_path, {0: 20})
    plan = make_plan("deepspark", 2, shards, task_attempts=1)
    with pytest.raises(TrainerError, match=r"worker 1.*shard at .*/shard-1/train_lmdb"):
        run_plan(plan, shards, snapshot_prefix=str(tmp_path / "tiny"))
