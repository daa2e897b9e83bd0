"""Arrays, datums, images: by hand, and the corner cases that Caffe's scripts rely on."""

from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from prototxt_parser.proto import caffe_pb2
from pycaffe import io

RANDOM = np.random.default_rng(1701)


def test_blobs_round_trip() -> None:
    arr, diff = RANDOM.normal(size=(2, 3, 5)), RANDOM.normal(size=(2, 3, 5))
    blob = io.array_to_blobproto(arr.astype(np.float32), diff)
    assert list(blob.shape.dim) == [2, 3, 5] and not blob.HasField("num")
    np.testing.assert_array_equal(io.blobproto_to_array(blob), arr.astype(np.float32))
    np.testing.assert_array_equal(io.blobproto_to_array(blob, True), diff.astype(np.float32))


def test_a_legacy_shape_has_precedence() -> None:
    blob = caffe_pb2.BlobProto(num=1, channels=2, height=1, width=3, data=range(6))
    blob.shape.dim.extend([6])
    assert io.blobproto_to_array(blob).shape == (1, 2, 1, 3)


def test_a_blob_without_shape_is_a_scalar() -> None:
    array = io.blobproto_to_array(caffe_pb2.BlobProto(data=[2.5]))
    assert array.shape == () and array == 2.5


@pytest.mark.parametrize("values", [[], [1.0, 2.0]])
def test_a_blob_with_another_number_of_values_is_refused(values: list[float]) -> None:
    blob = caffe_pb2.BlobProto(shape=caffe_pb2.BlobShape(dim=[3]), data=values)
    with pytest.raises(ValueError, match=f"holds {len(values)} values"):
        io.blobproto_to_array(blob)


def test_blob_vectors_round_trip() -> None:
    arrays = [np.arange(6.0).reshape(2, 3), np.array(4.0), np.arange(5.0)]
    read = io.blobprotovector_str_to_arraylist(io.arraylist_to_blobprotovector_str(arrays))
    assert len(read) == 3
    for got, want in zip(read, arrays, strict=True):
        np.testing.assert_array_equal(got, want)


def test_datums_of_bytes_and_floats() -> None:
    pixels = np.arange(30, dtype=np.uint8).reshape(2, 3, 5)
    datum = io.array_to_datum(pixels, 7)
    assert (datum.channels, datum.height, datum.width, datum.label) == (2, 3, 5, 7)
    assert datum.data == bytes(range(30))
    read = io.datum_to_array(datum)
    assert read.dtype == np.uint8 and read.flags.writeable
    np.testing.assert_array_equal(read, pixels)
    datum = io.array_to_datum(pixels / 4)
    assert not datum.data and not datum.HasField("label")
    read = io.datum_to_array(datum)
    assert read.dtype == np.float64
    np.testing.assert_array_equal(read, pixels / 4)


def test_a_label_of_zero_is_set() -> None:
    assert io.array_to_datum(np.zeros((1, 1, 1)), 0).HasField("label")


def test_datums_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^Incorrect array shape\."):
        io.array_to_datum(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="compressed image"):
        io.datum_to_array(caffe_pb2.Datum(encoded=True, data=b"x"))
    with pytest.raises(ValueError, match="reshape"):
        io.datum_to_array(caffe_pb2.Datum(channels=1, height=2, width=2, data=b"x"))


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    image = PIL.Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


def test_a_colour_image(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (4, 7, 3), np.uint8)
    path = save(tmp_path / "a.png", pixels)
    image = io.load_image(path)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, pixels / 255, rtol=1e-6)
    grey = io.load_image(path, color=False)
    assert grey.shape == (4, 7, 1) and grey.dtype == np.float32
    want = (pixels / 255 * [0.2125, 0.7154, 0.0721]).sum(2, keepdims=True)
    np.testing.assert_allclose(grey, want, rtol=1e-6)


def test_a_grey_image_fills_three_channels(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (4, 7), np.uint8)
    path = save(tmp_path / "a.png", pixels)
    image = io.load_image(str(path))
    assert image.shape == (4, 7, 3)
    np.testing.assert_allclose(image, np.repeat(pixels[..., None], 3, 2) / 255, rtol=1e-6)
    np.testing.assert_array_equal(io.load_image(path, color=False), image[..., :1])


def test_transparency_is_dropped(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (4, 7, 4), np.uint8)
    image = io.load_image(save(tmp_path / "a.png", pixels))
    np.testing.assert_allclose(image, pixels[..., :3] / 255, rtol=1e-6)
    grey = io.load_image(save(tmp_path / "b.png", pixels[..., [0, 3]]), color=False)
    np.testing.assert_allclose(grey, pixels[..., :1] / 255, rtol=1e-6)


def test_sixteen_bits_and_palettes(tmp_path: Path) -> None:
    deep = RANDOM.integers(0, 65536, (4, 7), np.uint16)
    image = io.load_image(save(tmp_path / "deep.png", deep), color=False)
    np.testing.assert_allclose(image[..., 0], deep / 65535, rtol=1e-6)
    flat = np.full((4, 7, 3), [10, 200, 30], np.uint8)
    image = io.load_image(save(tmp_path / "palette.gif", flat, "P"))
    assert image.shape == (4, 7, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_enlarging_blends_with_the_minimum_beyond_the_border(channels: int) -> None:
    im = np.repeat(np.array([[[3.0], [7.0]]]), channels, axis=2)
    resized = io.resize_image(im, (1, 4))
    # centres -0.25, 0.25, 0.75, 1.25: at the ends a quarter of the weight lies outside, on 3
    np.testing.assert_allclose(resized[0, :, 0], [3, 4, 6, 6])
    assert resized.shape == (1, 4, channels) and resized.dtype == np.float32


@pytest.mark.parametrize(("size", "border"), [((13, 17), 0), ((27, 75), 2)])
def test_resizing_away_from_the_border_equals_opencv(size: tuple[int, int], border: int) -> None:
    im = RANDOM.random((20, 31, 3)).astype(np.float32)
    want = cv2.resize(im, size[::-1], interpolation=cv2.INTER_LINEAR)
    inside = (slice(border, -border or None),) * 2
    np.testing.assert_allclose(io.resize_image(im, size)[inside], want[inside], atol=1e-6)


def test_reducing_does_not_smooth() -> None:
    im = np.zeros((2, 8, 1))
    im[:, :, 0] = [0, 0, 0, 10, 20, 0, 0, 40]
    # the centres of quarters lie at 1.5 and 5.5, the middle of the height at 0.5
    np.testing.assert_allclose(io.resize_image(im, (1, 2))[..., 0], [[0, 0]])
    np.testing.assert_allclose(io.resize_image(im, (1, 4))[..., 0], [[0, 5, 10, 20]])


def test_other_numbers_of_channels_align_corners() -> None:
    im = np.zeros((3, 2, 2))
    im[..., 0] = [[0, 8], [16, 24], [32, 40]]
    want = [[0, 4, 8], [8, 12, 16], [16, 20, 24], [24, 28, 32], [32, 36, 40]]
    np.testing.assert_allclose(io.resize_image(im, (5, 3))[..., 0], want)
    np.testing.assert_allclose(io.resize_image(im, (1, 1))[..., 0], [[0]])


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_same_size_is_the_same_image(channels: int) -> None:
    im = RANDOM.normal(size=(5, 7, channels)).astype(np.float32)
    for order in (0, 1):
        np.testing.assert_allclose(io.resize_image(im, (5, 7), order), im, rtol=1e-6)


def test_a_constant_image_stays_constant() -> None:
    np.testing.assert_array_equal(
        io.resize_image(np.full((2, 3, 3), 0.75), (5, 7)), np.full((5, 7, 3), 0.75, np.float32)
    )


@pytest.mark.parametrize("channels", [1, 2])
def test_nearest_pixels(channels: int) -> None:
    im = np.repeat(np.arange(4.0).reshape(1, 4, 1), channels, axis=2)
    halves = [1, 3] if channels == 1 else [0, 3]  # centres 0.5 and 2.5, or the corners
    np.testing.assert_array_equal(io.resize_image(im, (1, 2), interp_order=0)[0, :, 0], halves)


def test_resizing_what_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"interp_order must be 0 .* received 3"):
        io.resize_image(np.zeros((2, 3, 3)), (4, 5), interp_order=3)
    with pytest.raises(ValueError, match="to 0 x 5"):
        io.resize_image(np.zeros((2, 3, 3)), (0, 5))


def test_ten_crops() -> None:
    images = RANDOM.normal(size=(2, 5, 8, 3)).astype(np.float32)
    crops = io.oversample(images, (2, 3))
    assert crops.shape == (20, 2, 3, 3) and crops.dtype == np.float32
    corners = [(0, 0), (0, 5), (3, 0), (3, 5), (1, 2)]  # the centre: int(2.5 - 1), int(4 - 1.5)
    for i, (y, x) in enumerate(corners):
        np.testing.assert_array_equal(crops[10 + i], images[1, y : y + 2, x : x + 3])
        np.testing.assert_array_equal(crops[15 + i], images[1, y : y + 2, x : x + 3][:, ::-1])
    with pytest.raises(ValueError, match="images of 5 x 8 have no crops of 6 x 3"):
        io.oversample(images, (6, 3))


def transformer() -> io.Transformer:
    made = io.Transformer({"data": (2, 3, 5, 7)})
    made.set_transpose("data", (2, 0, 1))
    made.set_channel_swap("data", (2, 0, 1))
    made.set_raw_scale("data", 255)
    made.set_mean("data", np.array([10.0, 20.0, 30.0]))
    made.set_input_scale("data", 0.5)
    return made


def test_preprocessing_in_order() -> None:
    image = RANDOM.random((5, 7, 3)).astype(np.float32)
    kept = image.copy()
    got = transformer().preprocess("data", image)
    want = np.stack([(image[..., c] * 255 - m) / 2 for c, m in ((2, 10), (0, 20), (1, 30))])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(image, kept)


def test_deprocessing_is_the_inverse() -> None:
    image = RANDOM.random((5, 7, 3)).astype(np.float32)
    made = transformer()
    blob = made.preprocess("data", image)
    for batch in (blob, blob[np.newaxis]):
        np.testing.assert_allclose(made.deprocess("data", batch), image, rtol=1e-5, atol=1e-6)


def test_preprocessing_resizes() -> None:
    image = RANDOM.random((11, 9, 3)).astype(np.float32)
    plain = io.Transformer({"data": [2, 3, 5, 7]})
    np.testing.assert_array_equal(plain.preprocess("data", image), io.resize_image(image, (5, 7)))


def test_a_mean_image_is_used_or_resized() -> None:
    made = io.Transformer({"data": (1, 3, 5, 7), "grey": (1, 1, 4, 6)})
    mean = RANDOM.random((3, 5, 7))
    made.set_mean("data", mean)
    np.testing.assert_array_equal(made.mean["data"], mean)
    large = RANDOM.random((3, 11, 9))
    made.set_mean("data", large)
    want = io.resize_image(large.transpose(1, 2, 0), (5, 7)).transpose(2, 0, 1)
    np.testing.assert_array_equal(made.mean["data"], want)
    made.set_mean("grey", mean[0, :4, :6])
    assert made.mean["grey"].shape == (1, 4, 6)


def test_settings_that_do_not_fit_are_refused() -> None:
    made = io.Transformer({"data": (2, 3, 5, 7)})
    with pytest.raises(ValueError, match=r"image is not one of the net inputs: \{'data': \(2, 3"):
        made.set_raw_scale("image", 255)
    with pytest.raises(ValueError, match="is not one of the net inputs"):
        made.preprocess("image", np.zeros((5, 7, 3)))
    with pytest.raises(ValueError, match="Transpose order needs to have the same number"):
        made.set_transpose("data", (1, 0))
    with pytest.raises(ValueError, match="Channel swap needs to have the same number"):
        made.set_channel_swap("data", (1, 0))
    with pytest.raises(ValueError, match=r"Mean channels incompatible with input\."):
        made.set_mean("data", np.zeros(4))
    with pytest.raises(ValueError, match="Mean shape invalid"):
        made.set_mean("data", np.zeros((1, 3, 5, 7)))
    with pytest.raises(ValueError, match=r"Mean shape incompatible with input shape\."):
        made.set_mean("data", np.zeros((5, 7)))
