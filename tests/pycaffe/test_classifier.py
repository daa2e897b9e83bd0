"""Classifier and Detector on a net whose answer is an average, so that it can be worked out."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL.Image
import pytest

from prototxt_parser.errors import PrototxtError
from pycaffe import io
from pycaffe.classifier import Classifier
from pycaffe.detector import Detector
from pycaffe.net import Net

TEST = 1
RANDOM = np.random.default_rng(1701)

# Outputs the mean of each channel of a 4 x 6 image, in batches of 3.
MEANS = """
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 3 dim: 3 dim: 4 dim: 6 } } }
layer { name: "scale" type: "Scale" bottom: "data" top: "scaled" }
layer { name: "mean" type: "Pooling" bottom: "scaled" top: "pool"
  pooling_param { pool: AVE global_pooling: true } }
layer { name: "flat" type: "Flatten" bottom: "pool" top: "prob" }
"""
SQUARE = MEANS.replace("dim: 4 dim: 6", "dim: 8 dim: 8").replace('"prob"', '"score"')


@pytest.fixture
def model(tmp_path: Path) -> tuple[str, str]:
    return write_model(tmp_path, MEANS)


def write_model(folder: Path, text: str) -> tuple[str, str]:
    net, weights = str(folder / "net.prototxt"), str(folder / "net.caffemodel")
    Path(net).write_text(text)
    made = Net(net, TEST)
    made.params["scale"][0].data[:] = [1, 2, 3]
    made.save(weights)
    return net, weights


def images(count: int, height: int = 4, width: int = 6) -> list[np.ndarray]:
    return [RANDOM.random((height, width, 3)).astype(np.float32) for _ in range(count)]


def test_a_whole_image(model: tuple[str, str]) -> None:
    inputs = images(4)
    classifier = Classifier(*model)
    np.testing.assert_array_equal(classifier.crop_dims, [4, 6])
    np.testing.assert_array_equal(classifier.image_dims, [4, 6])
    want = [image.mean((0, 1)) * [1, 2, 3] for image in inputs]
    for oversample in (False, True):  # there is but one crop, and its mirror has the same mean
        got = classifier.predict(inputs, oversample=oversample)
        assert got.shape == (4, 3)
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_preprocessing_settings(model: tuple[str, str]) -> None:
    (image,) = images(1)
    mean = np.array([5.0, 6.0, 7.0])
    settings = {"mean": mean, "input_scale": 0.5, "raw_scale": 255, "channel_swap": (2, 1, 0)}
    got = Classifier(*model, **settings).predict([image], oversample=False)
    want = (image.mean((0, 1))[::-1] * 255 - mean) / 2 * [1, 2, 3]
    np.testing.assert_allclose(got[0], want, rtol=1e-5)


def test_the_centre_and_ten_crops(model: tuple[str, str]) -> None:
    (image,) = images(1, 11, 13)
    classifier = Classifier(*model, image_dims=(7, 9))
    resized = io.resize_image(image, (7, 9))
    centre = classifier.predict([image], oversample=False)
    np.testing.assert_allclose(centre[0], resized[1:5, 1:7].mean((0, 1)) * [1, 2, 3], rtol=1e-5)
    crops = [resized[y : y + 4, x : x + 6] for y, x in ((0, 0), (0, 3), (3, 0), (3, 3), (1, 1))]
    want = np.mean([crop.mean((0, 1)) for crop in crops], axis=0) * [1, 2, 3]
    np.testing.assert_allclose(classifier.predict([image])[0], want, rtol=1e-5)


def test_images_of_several_sizes(model: tuple[str, str]) -> None:
    inputs = [*images(1, 9, 5), *images(1, 3, 8)]
    got = Classifier(*model).predict(inputs, oversample=False)
    want = [io.resize_image(image, (4, 6)).mean((0, 1)) * [1, 2, 3] for image in inputs]
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_what_cannot_be_classified(model: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        Classifier(*model).predict([])
    with pytest.raises(ValueError, match="images of 3 x 9 have no crops of 4 x 6"):
        Classifier(*model, image_dims=(3, 9)).predict(images(1))


def picture(folder: Path, name: str = "a.png") -> tuple[Path, np.ndarray]:
    pixels = RANDOM.integers(0, 256, (20, 30, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(folder / name)
    return folder / name, io.load_image(folder / name)


def test_windows_of_images(tmp_path: Path) -> None:
    detector = Detector(*write_model(tmp_path, SQUARE), raw_scale=255)
    (first, a), (second, b) = picture(tmp_path), picture(tmp_path, "b.png")
    windows = [(2, 3, 10, 11), (0, 0, 20, 30)]
    found = detector.detect_windows([(first, windows), (second, windows[:1])])
    assert [(each["filename"], each["window"]) for each in found] == [
        (first, windows[0]), (first, windows[1]), (second, windows[0]),
    ]  # fmt: skip
    parts = [a[2:10, 3:11], io.resize_image(a, (8, 8)), b[2:10, 3:11]]
    for each, part in zip(found, parts, strict=True):
        np.testing.assert_allclose(
            each["prediction"], part.mean((0, 1)) * 255 * [1, 2, 3], rtol=1e-4
        )


def test_context_around_a_window(tmp_path: Path) -> None:
    detector = Detector(*write_model(tmp_path, SQUARE), context_pad=2)
    _, image = picture(tmp_path)
    # Half of the crop is the window of 6 x 8 (edges included), so it spans 12 x 16 pixels.
    got = detector.crop(image, (6, 10, 11, 17))
    assert got.shape == (8, 8, 3)
    np.testing.assert_allclose(got, io.resize_image(image[3:15, 6:22], (8, 8)))


def test_the_mean_stands_for_what_lies_beyond(tmp_path: Path) -> None:
    mean = np.array([51.0, 102.0, 204.0])
    detector = Detector(
        *write_model(tmp_path, SQUARE),
        mean=mean,
        raw_scale=255,
        channel_swap=(2, 0, 1),
        context_pad=2,
    )
    # Channel k of the blob is channel (2, 0, 1)[k] of the image, so channel 2 has the mean 51.
    np.testing.assert_allclose(detector.crop_mean[3, 5], [0.4, 0.8, 0.2])
    image = np.zeros((20, 30, 3), np.float32)
    crop = detector.crop(image, (0, 12, 5, 17))
    # The box of 13 rows from -3 begins above the image: 3 · 8 / 13 rows of the crop.
    np.testing.assert_allclose(crop[:2], np.broadcast_to([0.4, 0.8, 0.2], (2, 8, 3)))
    np.testing.assert_array_equal(crop[2:], 0)
    assert transformed_mean(detector, crop) == pytest.approx([0, 0, 0], abs=1e-4)


def transformed_mean(detector: Detector, crop: np.ndarray) -> list[float]:
    """Return what the net sees where the mean stands."""
    blob = detector.transformer.preprocess("data", crop)
    return [float(value) for value in blob[:, 0, 0]]


def test_context_can_be_reconfigured(tmp_path: Path) -> None:
    detector = Detector(*write_model(tmp_path, SQUARE))
    _, image = picture(tmp_path)
    np.testing.assert_array_equal(detector.crop(image, (6, 10, 11, 17)), image[6:11, 10:17])
    detector.configure_crop(2)
    assert detector.crop(image, (6, 10, 11, 17)).shape == (8, 8, 3)
    with pytest.raises(ValueError, match="context_pad 4 leaves nothing of the 8 x 8 input"):
        detector.configure_crop(4)


def test_windows_that_cannot_be(tmp_path: Path) -> None:
    detector = Detector(*write_model(tmp_path, SQUARE))
    path, _ = picture(tmp_path)
    with pytest.raises(ValueError, match="at least one window"):
        detector.detect_windows([(path, [])])
    with pytest.raises(ValueError, match=r"window 5, 5, 5, 9 \(ymin.* holds no pixel"):
        detector.detect_windows([(path, [(5, 5, 5, 9)])])


def test_selective_search_is_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(*write_model(tmp_path, SQUARE))
    path, _ = picture(tmp_path)
    with pytest.raises(PrototxtError, match="needs the package selective_search_ijcv_with_python"):
        detector.detect_selective_search([path])
    search = ModuleType("selective_search_ijcv_with_python")
    search.get_windows = lambda files, cmd: [[(0, 0, 8, 8)] for _ in files]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, search.__name__, search)
    found = detector.detect_selective_search([path])
    assert [(each["window"], each["filename"]) for each in found] == [((0, 0, 8, 8), str(path))]
