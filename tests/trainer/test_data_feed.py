"""The feed of a net: batches, positions, workers, places, refusals."""

import json
import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_databases import data_layer, images, make_image_lmdb, make_lmdb, raw_datum

from prototxt_parser.data_spec import DataSpec
from prototxt_parser.proto import caffe_pb2
from trainer.data.feed import NetFeed, open_feed
from trainer.data.mean_file import write_mean
from trainer.errors import DataError, TrainerError, UsageError

RANDOM = "crop_size: 3 mirror: true mean_value: 7 scale: 0.5"


@contextmanager
def opened(*specs: DataSpec, seed: int = 5, **settings: Any) -> Iterator[NetFeed]:
    feed = open_feed(specs, seed=seed, **settings)
    try:
        yield feed
    finally:
        feed.close()


def labels(feed: NetFeed, batches: int) -> list[list[int]]:
    return [feed.next()["label"].int().tolist() for _ in range(batches)]


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    return make_image_lmdb(tmp_path / "ten_lmdb", images(10))


def test_batches_hold_the_images_in_order_and_wrap(ten: Path) -> None:
    with opened(data_layer(ten)) as feed:
        assert feed.shapes == {"data": (4, 3, 5, 7), "label": (4,)}
        batches = [feed.next() for _ in range(3)]
    data = torch.cat([batch["data"] for batch in batches])
    expected = np.concatenate([images(10), images(10)[:2]])
    assert data.dtype == batches[0]["label"].dtype == torch.float32
    np.testing.assert_array_equal(data.numpy(), expected)
    assert torch.cat([batch["label"] for batch in batches]).tolist() == [*range(10), 0, 1]


def test_the_caller_may_keep_and_change_batches(ten: Path) -> None:
    with opened(data_layer(ten)) as feed:
        first = feed.next()["data"]
        first.zero_()
        for _ in range(6):
            feed.next()
        assert not first.any()


def test_without_a_second_top_there_are_no_labels(ten: Path) -> None:
    with opened(data_layer(ten, tops='top: "pixels"')) as feed:
        assert feed.shapes == {"pixels": (4, 3, 5, 7)}
        assert list(feed.next()) == ["pixels"]


def test_a_batch_may_be_larger_than_the_database(ten: Path) -> None:
    with opened(data_layer(ten, batch_size=23)) as feed:
        assert labels(feed, 1) == [[*range(10), *range(10), 0, 1, 2]]


def test_two_data_layers_are_read_side_by_side(ten: Path, tmp_path: Path) -> None:
    other = make_image_lmdb(tmp_path / "three_lmdb", images(3, 1, 2, 9))
    second = data_layer(other, batch_size=2, tops='top: "extra"')
    with opened(data_layer(ten), second) as feed:
        assert feed.shapes == {"data": (4, 3, 5, 7), "label": (4,), "extra": (2, 1, 2, 9)}
        batch = feed.next()
        assert {name: tuple(blob.shape) for name, blob in batch.items()} == feed.shapes


def test_a_feed_goes_on_bit_for_bit_from_a_saved_position(ten: Path) -> None:
    spec = data_layer(ten, transform=RANDOM)
    with opened(spec) as feed:
        for _ in range(7):
            feed.next()
        state = json.loads(json.dumps(feed.state_dict()))
        after = [feed.next()["data"] for _ in range(6)]
        feed.load_state_dict(state)
        assert feed.state_dict() == state
        again = [feed.next()["data"] for _ in range(6)]
    with opened(spec) as other:
        other.next()
        other.load_state_dict(state)
        elsewhere = [other.next()["data"] for _ in range(6)]
    for wanted, *copies in zip(after, again, elsewhere, strict=True):
        assert all(torch.equal(wanted, copy) for copy in copies)


def test_skipped_batches_are_those_that_next_would_have_given(ten: Path) -> None:
    spec = data_layer(ten, transform=RANDOM)
    with opened(spec, rank=1, world_size=2) as feed, opened(spec, rank=1, world_size=2) as other:
        for _ in range(7):
            feed.next()
        other.next()
        other.skip(6)
        assert other.state_dict() == feed.state_dict()
        assert torch.equal(other.next()["data"], feed.next()["data"])


def test_the_position_does_not_count_what_was_read_ahead(ten: Path) -> None:
    with opened(data_layer(ten, data="backend: LMDB prefetch: 9")) as feed:
        feed.next()
        state = feed.state_dict()
        assert feed.next()["label"].tolist() == [4, 5, 6, 7]
        feed.load_state_dict(state)
        assert feed.next()["label"].tolist() == [4, 5, 6, 7]


def test_a_feed_repeats_with_its_seed_and_not_with_another(ten: Path) -> None:
    spec = data_layer(ten, transform=RANDOM)
    runs = []
    for seed in (5, 5, 6):
        with opened(spec, seed=seed) as feed:
            runs.append(torch.cat([feed.next()["data"] for _ in range(4)]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_workers_train_on_their_own_parts_and_test_on_all(ten: Path) -> None:
    for rank, part in enumerate(([0, 1, 2], [3, 4, 5], [6, 7, 8, 9])):
        with opened(data_layer(ten), rank=rank, world_size=3) as feed:
            assert list(chain.from_iterable(labels(feed, 3))) == (part * 4)[:12]
        with opened(data_layer(ten, phase="TEST"), rank=rank, world_size=3) as feed:
            assert labels(feed, 1) == [[0, 1, 2, 3]]


def test_workers_draw_different_random_numbers(tmp_path: Path) -> None:
    picture = images(1, 3, 9, 11)[0]
    same = make_lmdb(tmp_path / "same_lmdb", [raw_datum(picture, 0)] * 8)
    batches = []
    for rank in range(2):
        spec = data_layer(same, batch_size=16, transform=RANDOM)
        with opened(spec, rank=rank, world_size=2) as feed:
            batches.append(feed.next()["data"])
    assert not torch.equal(*batches)


def test_one_worker_of_one_reads_as_alone(ten: Path) -> None:
    spec = data_layer(ten, transform=RANDOM)
    with opened(spec) as alone, opened(spec, rank=0, world_size=1) as worker:
        for _ in range(4):
            assert torch.equal(alone.next()["data"], worker.next()["data"])


def test_deprecated_settings_of_data_param_are_ignored(ten: Path) -> None:
    old = 'backend: LMDB scale: 9 mean_file: "none" crop_size: 2 mirror: true rand_skip: 5'
    with opened(data_layer(ten, data=old)) as feed:
        np.testing.assert_array_equal(feed.next()["data"].numpy(), images(4 + 6)[:4])


def test_data_kept_elsewhere_is_found_by_its_name(ten: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.move(ten, folder)
    write_mean(folder / "mean.binaryproto", np.full((3, 5, 7), 2, np.float32))
    spec = data_layer(
        "examples/ten_lmdb/", transform='mean_file: "examples/mean.binaryproto"', phase="TEST"
    )
    with opened(spec, data_dir=folder) as feed:
        expected = images(10)[:4].astype(np.float32) - 2
        np.testing.assert_array_equal(feed.next()["data"].numpy(), expected)


def test_caffes_log_lines_appear(ten: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with opened(data_layer(ten, batch_size=5, data="backend: LMDB prefetch: 1")) as feed:
        assert caplog.messages == [f"Opened lmdb {ten}", "output data size: 5,3,5,7"]
        labels(feed, 3)
    assert "Restarting data prefetching from start." in caplog.messages


def test_color_flags_on_raw_data_are_only_logged(
    ten: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(data_layer(ten, transform="force_gray: true")) as feed:
        assert feed.shapes["data"] == (4, 3, 5, 7)
    assert caplog.messages == ["force_color and force_gray only for encoded datum"]


def test_a_damaged_entry_is_reported_after_the_batches_before_it(tmp_path: Path) -> None:
    values = [raw_datum(image, label) for label, image in enumerate(images(5))]
    broken = make_lmdb(tmp_path / "broken_lmdb", [*values, b"\xff\xff", *values])
    with opened(data_layer(broken, batch_size=2)) as feed:
        assert labels(feed, 2) == [[0, 1], [2, 3]]
        message = (
            rf'net.prototxt:3:1: layer "images" \(Data\): {broken}, key b\'005\': expected a'
            " serialized Datum; 2 bytes are none; convert the images again"
        )
        with pytest.raises(DataError, match=message):
            feed.next()


def test_images_of_different_sizes_need_a_crop(tmp_path: Path) -> None:
    sizes = [raw_datum(images(1, 3, side, 11)[0], side) for side in (5, 6)]
    mixed = make_lmdb(tmp_path / "mixed_lmdb", sizes)
    with (
        opened(data_layer(mixed)) as feed,
        pytest.raises(DataError, match=r"set crop_size, or batch_size 1"),
    ):
        feed.next()
    with opened(data_layer(mixed, batch_size=1)) as feed:
        assert [feed.next()["data"].shape[2] for _ in range(3)] == [5, 6, 5]


def test_close_ends_threads_and_may_be_repeated(ten: Path) -> None:
    before = threading.active_count()
    feed = open_feed([data_layer(ten), data_layer(ten, tops='top: "b"')], seed=5)
    feed.next()
    assert threading.active_count() == before + 2
    feed.close()
    feed.close()
    assert threading.active_count() == before
    with pytest.raises(TrainerError, match=r"closed"):
        feed.next()


def test_a_feed_that_cannot_be_opened_leaves_nothing_open(ten: Path) -> None:
    with pytest.raises(DataError, match=r"gone_lmdb does not exist"):
        open_feed([data_layer(ten), data_layer("gone_lmdb")], seed=5)
    shutil.rmtree(ten)
    with pytest.raises(DataError, match=r"does not exist"):
        open_feed([data_layer(ten)], seed=5)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("examples/cifar10/cifar10_train_lmdb", "torrefy data cifar10 --out DIR"),
        ("cifar100_train_lmdb", "torrefy data cifar100 --out DIR"),
        ("examples/mnist/mnist_test_lmdb/", "torrefy data mnist --out DIR"),
        ("siamese/mnist_siamese_test_leveldb", "torrefy data siamese --out DIR"),
        ("cifar10/cifar10_train_pad4_lmdb", "torrefy data cifar10 --pad 4 --out DIR"),
        ("ilsvrc12_train_lmdb", "Correct the path"),
    ],
)
def test_missing_data_says_where_it_was_looked_for(name: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_feed([data_layer(name)], seed=5, data_dir=tmp_path)
    message = str(caught.value)
    assert message.startswith('net.prototxt:3:1: layer "images" (Data): ')
    assert str(Path.cwd() / name) in message
    assert str(tmp_path / Path(name).name) in message
    assert remedy in message
    assert "--data" in message


def test_a_missing_mean_file_is_reported(ten: Path) -> None:
    with pytest.raises(DataError, match=r"gone.binaryproto does not exist; looked at .*Correct"):
        open_feed([data_layer(ten, transform='mean_file: "gone.binaryproto"')], seed=5)


@pytest.mark.parametrize("backend", ["", "backend: LEVELDB"])
def test_the_wrong_backend_is_named(ten: Path, backend: str) -> None:
    with pytest.raises(DataError, match=r"expected the backend LEVELDB, found data.mdb.* of LMDB"):
        open_feed([data_layer(ten, data=backend)], seed=5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be > 0; received 0"),
        ({"data": "backend: LMDB prefetch: 0"}, "prefetch must be > 0; received 0"),
        ({"tops": 'top: "a" top: "b" top: "c"'}, r"at most 2 top blob\(s\) as output; received 3"),
        ({"tops": ""}, r"at least 1 top blob\(s\) as output; received 0"),
        ({"source": ""}, "source must name a file or folder; received none"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    ten: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(
        UsageError, match=rf'net.prototxt:3:1: layer "images" \(Data\): .*{message}'
    ):
        open_feed([data_layer(**{"source": ten, **settings})], seed=5)


@pytest.mark.parametrize(
    ("layer_type", "message"),
    [
        ("MemoryData", r" needs to be initialized by calling Reset: .*set_input_arrays; to train"),
        (
            "SpikeData",
            r": expected a data layer of one of the types Data, HDF5Data, ImageData, Win",
        ),
    ],
)
def test_layers_that_read_no_files_are_refused(layer_type: str, message: str) -> None:
    param = caffe_pb2.LayerParameter(name="pictures", type=layer_type, top=["data", "label"])
    with pytest.raises(UsageError, match=rf'^layer "pictures" \({layer_type}\){message}'):
        open_feed([DataSpec(param, caffe_pb2.TRAIN)], seed=5)


def test_transform_settings_are_checked_when_the_feed_is_opened(ten: Path) -> None:
    with pytest.raises(DataError, match=r'layer "images" \(Data\): crop_size 6 does not fit'):
        open_feed([data_layer(ten, transform="crop_size: 6")], seed=5)


def test_a_position_of_another_run_is_refused(ten: Path) -> None:
    with opened(data_layer(ten)) as feed, opened(data_layer(ten), world_size=2) as half:
        feed.next()
        state = feed.state_dict()
        with pytest.raises(DataError, match=r"entries 0 to 10; this run reads entries 0 to 5"):
            half.load_state_dict(state)
        with pytest.raises(
            DataError, match=r"for the layers .'images'., received one for .'other'."
        ):
            feed.load_state_dict({"layers": [{**state["layers"][0], "name": "other"}]})
        (place,) = state["layers"]
        changes = ({"key": "no hex"}, {"item": None}, {"item": -1}, {"end": 0}, {"more": 1})
        damaged_states = [{"layers": [{**place, **change}]} for change in changes]
        for damaged in ({}, {"layers": 3}, {"layers": [{"name": "images"}]}, *damaged_states):
            with pytest.raises(DataError, match=r"saved data position is damaged"):
                feed.load_state_dict(damaged)


def test_a_position_in_a_changed_database_is_refused(tmp_path: Path) -> None:
    path = make_image_lmdb(tmp_path / "a_lmdb", images(10))
    with opened(data_layer(path)) as feed:
        feed.next()
        state = feed.state_dict()
        state["layers"][0]["key"] = b"xyz".hex()
        with pytest.raises(DataError, match=r"entry 4 of 10 is not there"):
            feed.load_state_dict(state)
