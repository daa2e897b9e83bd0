"""Shapes of the blobs that data layers fill, without reading data where that can be helped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prototxt_parser.data_spec import DataSpec
from prototxt_parser.shapes import Shape
from trainer.data.feed import open_feed
from trainer.data.mean_file import read_mean
from trainer.data.paths import find_data
from trainer.errors import DataError, TrainerError, UsageError

_UNKNOWN = 0
_EXAMPLE = (3, 256, 256)

_Image = tuple[int, int, int]  # channels, height, width; 0 where unknown


def input_shapes(
    specs: Sequence[DataSpec], given: Mapping[str, Shape], data_dir: Path | None = None
) -> dict[str, Shape]:
    """Return the shape of every blob that data layers fill.

    What is given comes first, then what the definition says (batch size, crop, mean, colour), then
    the data themselves.

    Args:
        specs: The data layers.
        given: Shapes by blob name; of a layer with images and labels the images' is enough.
        data_dir: Where to look for data that are not where the net says.

    Raises:
        UsageError: Nothing says a shape; the message says what to give.
    """
    shapes = dict(given)
    for spec in specs:
        for top, shape in _shapes(spec, given, data_dir).items():
            shapes.setdefault(top, shape)
    return shapes


def _shapes(
    spec: DataSpec, given: Mapping[str, Shape], data_dir: Path | None
) -> Mapping[str, Shape]:
    if all(top in given for top in spec.tops):
        return {}
    if spec.param.type not in _IMAGES:
        return _from_data(spec, None, data_dir)
    batch, image = spec.batch_size, _IMAGES[spec.param.type](spec, data_dir)
    first = spec.tops[0]
    if first in given:
        return dict.fromkeys(spec.tops[1:], given[first][:1])
    if _UNKNOWN in (batch, *image):
        return _from_data(spec, image, data_dir)
    return dict(zip(spec.tops, ((batch, *image), (batch,)), strict=False))


def _from_data(spec: DataSpec, image: _Image | None, data_dir: Path | None) -> Mapping[str, Shape]:
    try:
        feed = open_feed([spec], seed=0, data_dir=data_dir)
    except TrainerError as error:
        raise UsageError(
            f"{error}. So the shape of {', '.join(spec.tops)} is not known; say it with "
            f"{_flags(spec, image)}, or with the numbers that your data have"
        ) from error
    try:
        return dict(feed.shapes)
    finally:
        feed.close()


def _flags(spec: DataSpec, image: _Image | None) -> str:
    """Return what to type, with examples for the numbers that are not known."""
    batch = spec.batch_size or 1
    if image is None:
        return " ".join(f"--input-shape {top}:{batch},10" for top in spec.tops)
    numbers = [known or example for known, example in zip(image, _EXAMPLE, strict=True)]
    return f"--input-shape {spec.tops[0]}:{','.join(map(str, (batch, *numbers)))}"


def _data(spec: DataSpec, data_dir: Path | None) -> _Image:
    transform = spec.param.transform_param
    channels = {(True, False): 3, (False, True): 1}.get(
        (transform.force_color, transform.force_gray), _UNKNOWN
    )
    if len(transform.mean_value) > 1:
        channels = len(transform.mean_value)
    image = (channels, _UNKNOWN, _UNKNOWN)
    if transform.mean_file:
        image = _mean_shape(transform.mean_file, data_dir) or image
    return _cropped(spec, image)


def _image_data(spec: DataSpec, data_dir: Path | None) -> _Image:
    del data_dir
    images = spec.param.image_data_param
    return _cropped(spec, (3 if images.is_color else 1, images.new_height, images.new_width))


def _window_data(spec: DataSpec, data_dir: Path | None) -> _Image:
    del data_dir
    old_size = spec.param.window_data_param.crop_size
    return _cropped(spec, (3, old_size, old_size))


def _memory_data(spec: DataSpec, data_dir: Path | None) -> _Image:
    del data_dir
    memory = spec.param.memory_data_param
    return memory.channels, memory.height, memory.width


_IMAGES: Mapping[str, Callable[[DataSpec, Path | None], _Image]] = {
    "Data": _data,
    "ImageData": _image_data,
    "MemoryData": _memory_data,
    "WindowData": _window_data,
}


def _cropped(spec: DataSpec, image: _Image) -> _Image:
    crop = spec.param.transform_param.crop_size
    return (image[0], crop, crop) if crop else image


def _mean_shape(mean_file: str, data_dir: Path | None) -> _Image | None:
    try:
        channels, height, width = read_mean(find_data(mean_file, data_dir)).shape
    except DataError:
        return None
    return channels, height, width
