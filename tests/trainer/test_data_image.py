"""Decoding of images and datums.

opencv_images.npz holds small image files of every kind and what OpenCV 4.6 decodes them to: as
stored (`native`), with force_gray (`gray`) and with force_color (`color`).
"""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prototxt_parser.proto import caffe_pb2
from trainer.data.datum import decode_datum, parse_datum
from trainer.data.image import decode_image
from trainer.errors import DataError

FLAGS = {"native": {}, "gray": {"force_gray": True}, "color": {"force_color": True}}

with np.load(Path(__file__).with_name("opencv_images.npz")) as _arrays:
    OPENCV = dict(_arrays)
KINDS = sorted({name.split("/")[0] for name in OPENCV})


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "16" not in kind])
def test_image_is_decoded_as_opencv_does(kind: str, flags: str) -> None:
    got = decode_image(OPENCV[f"{kind}/file"].tobytes(), **FLAGS[flags])
    wanted = OPENCV[f"{kind}/{flags}"]
    assert (got.shape, got.dtype) == (wanted.shape, np.uint8)
    # JPEG libraries may round differently.
    tolerance = 2 if kind.startswith("jpg") else 0
    np.testing.assert_allclose(got.astype(int), wanted.astype(int), rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", ["png_grey16", "png_rgb16"])
def test_16_bit_images_need_a_flag(kind: str) -> None:
    with pytest.raises(DataError, match=r"must be unsigned byte; received 16 bits"):
        decode_image(OPENCV[f"{kind}/file"].tobytes())


@pytest.mark.parametrize("kind", ["png_rgb", "jpg_rgb", "bmp_rgb"])
def test_damaged_images_are_refused(kind: str) -> None:
    whole = OPENCV[f"{kind}/file"].tobytes()
    with pytest.raises(DataError, match=r"expected a PNG, JPEG, BMP, PPM, TIFF or WebP image"):
        decode_image(whole[: len(whole) // 2])


def test_other_formats_are_refused() -> None:
    file = io.BytesIO()
    Image.new("RGB", (7, 5)).save(file, "GIF")
    for content in (file.getvalue(), b"", b"no image at all"):
        with pytest.raises(DataError, match=r"cannot be decoded"):
            decode_image(content)


def test_raw_bytes_keep_their_planes() -> None:
    pixels = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)
    datum = caffe_pb2.Datum(channels=2, height=3, width=5, data=pixels.tobytes(), label=9)
    image = decode_datum(parse_datum(datum.SerializeToString()), force_gray=True)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


def test_floats_are_used_when_there_are_no_bytes() -> None:
    values = np.linspace(-2, 2, 2 * 3 * 5, dtype=np.float32)
    datum = caffe_pb2.Datum(channels=2, height=3, width=5, float_data=values)
    image = decode_datum(datum)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, values.reshape(2, 3, 5))
    datum.data = bytes(range(30))
    np.testing.assert_array_equal(decode_datum(datum).ravel(), np.arange(30))


@pytest.mark.parametrize(
    ("channels", "height", "width", "values"), [(2, 3, 5, 29), (2, 3, 5, 31), (0, 3, 5, 7)]
)
def test_a_datum_of_the_wrong_size_is_refused(
    channels: int, height: int, width: int, values: int
) -> None:
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width, data=b"x" * values)
    expected = rf"{channels} \* {height} \* {width} values in the Datum; received {values}"
    with pytest.raises(DataError, match=expected):
        decode_datum(datum)


def test_what_is_no_datum_is_refused() -> None:
    with pytest.raises(DataError, match=r"serialized Datum; 5 bytes are none"):
        parse_datum(b"\xff\xff\xff\xff\xff")
    with pytest.raises(DataError, match=r"hold none"):
        parse_datum(caffe_pb2.Datum(channels=1, height=2, width=3, label=4).SerializeToString())
