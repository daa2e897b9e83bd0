"""The transformer: arithmetic, windows, random numbers, refusals."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from image_databases import images

from prototxt_parser.proto import caffe_pb2
from trainer.data.mean_file import MeanImage, read_mean
from trainer.data.transform import Transformer
from trainer.errors import DataError


def transformer(
    text: str, phase: str = "TRAIN", mean: MeanImage | None = None, seed: int = 3, stream: int = 0
) -> Transformer:
    param = text_format.Parse(text, caffe_pb2.TransformationParameter())
    return Transformer(param, caffe_pb2.Phase.Value(phase), mean, seed=seed, stream=stream)


def test_mean_is_subtracted_before_scaling_in_float32() -> None:
    picture = np.array([[[200, 7, 1]]], np.uint8)
    out = transformer("mean_value: 104.3 scale: 0.00390625")([picture], 0)
    expected = (picture.astype(np.float32) - np.float32(104.3)) * np.float32(0.00390625)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out[0], expected)


def test_mean_image_is_read_where_the_pixel_comes_from_and_then_mirrored() -> None:
    picture = images(1, 2, 8, 11)[0]
    mean = images(2, 2, 8, 11)[1].astype(np.float32) / 3
    outs = transformer("mean_file: 'm' crop_size: 5 mirror: true scale: 0.5", "TEST", mean)(
        [picture] * 20, 0
    )
    window = (slice(None), slice(1, 6), slice(3, 8))  # floor((8-5)/2), floor((11-5)/2)
    upright = (picture[window].astype(np.float32) - mean[window]) * np.float32(0.5)
    kinds = {
        "mirrored" if np.array_equal(out, upright[..., ::-1]) else "upright"
        for out in outs
        if np.array_equal(out, upright[..., ::-1]) or np.array_equal(out, upright)
    }
    assert kinds == {"mirrored", "upright"}
    assert all(
        np.array_equal(out, upright) or np.array_equal(out, upright[..., ::-1]) for out in outs
    )


def test_one_mean_value_goes_for_all_channels() -> None:
    pictures = images(3)
    np.testing.assert_array_equal(
        transformer("mean_value: 9")(pictures, 0),
        transformer("mean_value: 9 mean_value: 9 mean_value: 9")(pictures, 0),
    )


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_random_numbers_depend_on_the_item_alone(phase: str) -> None:
    pictures = images(12, 3, 9, 13)
    transform = transformer("crop_size: 4 mirror: true", phase)
    whole = transform(pictures, 70)
    pieces = [
        transform(pictures[:5], 70),
        transform(pictures[5:6], 75),
        transform(pictures[6:], 76),
    ]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert not np.array_equal(transform(pictures, 71), whole)


@pytest.mark.parametrize("other", [{"seed": 4}, {"stream": 1}, {"seed": -1}])
def test_seeds_and_streams_give_other_random_numbers(other: dict[str, int]) -> None:
    pictures = images(12, 3, 9, 13)
    text = "crop_size: 4 mirror: true"
    assert not np.array_equal(
        transformer(text)(pictures, 0), transformer(text, **other)(pictures, 0)
    )


def test_every_window_and_both_directions_are_equally_likely() -> None:
    # The value of a pixel says where it came from, and three in a row say in which direction.
    picture = np.arange(5 * 6, dtype=np.uint8).reshape(1, 5, 6)
    out = transformer("crop_size: 3 mirror: true")([picture] * 24_000, 0)
    left, right = out[:, 0, 0, 0], out[:, 0, 0, 2]
    corner = np.minimum(left, right).astype(int)
    places, counts = np.unique(corner * 2 + (right < left), return_counts=True)
    assert len(places) == 3 * 4 * 2
    assert counts.min() > 850  # of 1000 expected, standard deviation 31
    assert counts.max() < 1150


def test_images_of_any_size_share_a_batch_when_cropped() -> None:
    small, large = images(1, 3, 6, 7)[0], images(1, 3, 9, 12)[0]
    out = transformer("crop_size: 4", "TEST")([small, large], 0)
    np.testing.assert_array_equal(out[0], small[:, 1:5, 1:5])
    np.testing.assert_array_equal(out[1], large[:, 2:6, 4:8])
    with pytest.raises(DataError, match=r"one size; expected .3, 6, 7., received .3, 9, 12."):
        transformer("")([small, large], 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mean_file: 'm' mean_value: 1", "mean_file and mean_value at the same time"),
        ("force_color: true force_gray: true", "both force_color and force_gray"),
        ("crop_size: 6", "crop_size 6 does not fit an image of 5 x 7"),
        ("mean_value: 1 mean_value: 2", "as many as channels: 3; received 2"),
    ],
)
def test_settings_that_cannot_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        transformer(text).output_shape(images(1)[0])


def test_a_mean_image_of_another_size_is_refused() -> None:
    mean = np.zeros((3, 5, 8), np.float32)
    with pytest.raises(DataError, match=r"mean_file m must .*\(3, 5, 7\); received \(3, 5, 8\)"):
        transformer("mean_file: 'm' crop_size: 4", mean=mean)(images(2), 0)


@pytest.mark.parametrize(
    "shape",
    [
        {"num": 1, "channels": 2, "height": 3, "width": 5},
        {"shape": caffe_pb2.BlobShape(dim=[1, 2, 3, 5])},
        {"shape": caffe_pb2.BlobShape(dim=[2, 3, 5])},
    ],
)
def test_mean_files_of_old_and_new_make_are_read(shape: dict[str, int], tmp_path: Path) -> None:
    blob = caffe_pb2.BlobProto(data=range(30), **shape)
    (tmp_path / "mean").write_bytes(blob.SerializeToString())
    np.testing.assert_array_equal(read_mean(tmp_path / "mean"), np.arange(30).reshape(2, 3, 5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xff", "expected a binary BlobProto"),
        (
            caffe_pb2.BlobProto(num=1, channels=2, data=[1] * 9).SerializeToString(),
            "holds 9 values",
        ),
        (
            caffe_pb2.BlobProto(
                shape=caffe_pb2.BlobShape(dim=[5, 2]), data=[1] * 10
            ).SerializeToString(),
            r"received the shape \(5, 2\)",
        ),
        (
            caffe_pb2.BlobProto(
                num=2, channels=1, height=2, width=3, data=[1] * 12
            ).SerializeToString(),
            r"received the shape \(2, 1, 2, 3\)",
        ),
    ],
)
def test_what_is_no_mean_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "mean").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_mean(tmp_path / "mean")
    with pytest.raises(DataError, match=r"gone: expected a binary BlobProto"):
        read_mean(tmp_path / "gone")
