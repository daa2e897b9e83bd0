"""Arrow columns to rows and batches, without Spark."""

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from prototxt_parser.proto.caffe_pb2 import TRAIN, TransformationParameter
from trainer.cluster.dataframe.inputs import Input, Labels
from trainer.cluster.dataframe.row_feed import Partition, RowFeed
from trainer.cluster.dataframe.rows import rows_of
from trainer.errors import DataError

SHAPE = (2, 3, 1)
DATA, LABEL = Input("data", SHAPE), Input("label", ())
PIXELS = np.random.default_rng(2).integers(0, 256, (11, *SHAPE), dtype=np.uint8)


def raw(kind: Any) -> pa.Array:
    return pa.array([image.tobytes() for image in PIXELS], kind)


def lists(kind: Any) -> pa.Array:
    return pa.array(PIXELS.reshape(11, -1).tolist(), kind)


@pytest.mark.parametrize(
    "array",
    [
        raw(pa.binary()),
        raw(pa.large_binary()),
        lists(pa.list_(pa.float32())),
        lists(pa.large_list(pa.float64())),
        lists(pa.list_(pa.int16())),
        lists(pa.list_(pa.float32(), 6)),
    ],
    ids=lambda array: str(array.type),
)
def test_every_type_and_every_slice_gives_the_rows(array: pa.Array) -> None:
    np.testing.assert_array_equal(rows_of(array, DATA), PIXELS)
    np.testing.assert_array_equal(rows_of(array.slice(3, 5), DATA), PIXELS[3:8])


def test_raw_bytes_are_not_copied() -> None:
    array = raw(pa.binary())
    rows = rows_of(array, DATA)
    assert rows.dtype == np.uint8
    assert rows.__array_interface__["data"][0] == array.buffers()[2].address


@pytest.mark.parametrize(
    ("array", "spec", "message"),
    [
        (pa.array([b"123456", None]), DATA, 'blob "data", row 8 .*received null'),
        (pa.array([b"123456", b"12"]), DATA, "row 8 .*expected 6 bytes.*received 2"),
        (pa.array([[1.0] * 6, [2.0] * 7]), DATA, "row 8 .*expected 6 values.*received 7"),
        (pa.array([[1.0] * 6, [2.0, None, 3, 4, 5, 6]]), DATA, "row 8 .*values is null"),
        (pa.array([1.0]), DATA, "row 7 .*expected 6 values .*received 1"),
        (pa.array([b"\x89PNG\r\n\x1a\n?"]), DATA, None),
        (pa.array([1.0, 3.0]), Input("l", (), labels=Labels(3)), "row 8 .*from 0 to 2.*received 3"),
        (pa.array([1.0, -1.0]), Input("l", (), labels=Labels(3)), "received -1"),
    ],
)
def test_wrong_rows_are_named(array: pa.Array, spec: Input, message: str | None) -> None:
    if message is None:  # an image file, which is decoded when it is used
        with pytest.raises(DataError, match=r"row 7 .*cannot be decoded"):
            rows_of(array, spec, 7)[0]
        return
    with pytest.raises(DataError, match=message):
        rows_of(array, spec, 7)


def test_an_ignored_label_is_allowed() -> None:
    spec = Input("l", (), labels=Labels(3, ignored=255))
    assert rows_of(pa.array([2.0, 255.0]), spec).tolist() == [2, 255]


def partition(*, weights: list[float] | None = None, data: Input = DATA) -> Partition:
    columns = {"data": raw(pa.binary()), "label": pa.array(np.arange(11.0))}
    if weights is not None:
        columns["weight"] = pa.array(weights)
    table = pa.table(columns)
    return Partition((data, LABEL), table.to_batches(max_chunksize=4))


def labels(feed: RowFeed, batches: int) -> list[float]:
    return [value for _ in range(batches) for value in feed.next()["label"].tolist()]


def test_every_epoch_has_every_row_in_another_order() -> None:
    feed = RowFeed(partition(), 4, seed=5, rank=0)
    read = labels(feed, 11)
    feed.close()
    epochs = [read[start : start + 11] for start in range(0, 44, 11)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_batches_hold_what_belongs_together() -> None:
    feed = RowFeed(partition(), 4, seed=5, rank=0)
    batch = feed.next()
    feed.close()
    assert feed.shapes == {"data": (4, *SHAPE), "label": (4,)}
    numbers = batch["label"].int().numpy()
    torch.testing.assert_close(batch["data"], torch.from_numpy(PIXELS[numbers]).float())


@pytest.mark.parametrize("weights", [None, [1.0] * 11])
def test_a_feed_goes_on_from_anywhere(weights: list[float] | None) -> None:
    crop = TransformationParameter(crop_size=1, mirror=True)
    data = Input("data", SHAPE, crop, phase=TRAIN)
    whole, later, resumed = (
        RowFeed(partition(weights=weights, data=data), 3, seed=5, rank=1) for _ in range(3)
    )
    batches = [whole.next() for _ in range(9)]
    later.next()
    later.skip(5)
    resumed.load_state_dict(later.state_dict())
    for feed in (later, resumed):
        for expected, batch in zip(batches[6:], islice(iter(feed.next, None), 3), strict=True):
            assert all(torch.equal(batch[name], expected[name]) for name in expected)
    for feed in (whole, later, resumed):
        feed.close()


def test_workers_read_in_orders_of_their_own() -> None:
    feeds = [RowFeed(partition(), 11, seed=5, rank=rank) for rank in range(2)]
    first, second = (labels(feed, 1) for feed in feeds)
    assert first != second
    for feed in feeds:
        feed.close()


def test_rows_are_drawn_as_often_as_their_weights_say() -> None:
    weights = [0.0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 5]
    feed = RowFeed(partition(weights=weights), 80, seed=5, rank=0)
    counts = Counter(labels(feed, 100))
    feed.close()
    assert set(counts) == {1, 2, 10}
    for row, share in ((1, 1 / 8), (2, 2 / 8), (10, 5 / 8)):
        assert counts[row] / 8000 == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0] * 10 + [-1.0], "row 10 .*expected a weight of 0 or more; received -1"),
        ([1.0] * 10 + [float("nan")], "received nan"),
        ([0.0] * 11, "all weights .* are 0"),
    ],
)
def test_wrong_weights_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        partition(weights=weights)
