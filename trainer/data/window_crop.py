"""Cutting a window out of an image, with the context around it, to a square of fixed size."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from trainer.data.resize import Pixels, resize
from trainer.data.window_file import Window
from trainer.errors import DataError


class Patch(NamedTuple):
    """The part of a crop that the image covers.

    Attributes:
        pixels: Its pixels, (C, H, W).
        top: Rows of the crop above it.
        left: Columns of the crop to its left.
    """

    pixels: Pixels
    top: int
    left: int


class _Side(NamedTuple):
    """A window along one axis, and where it comes to lie in the crop."""

    first: int
    last: int
    size: int
    before: int
    after: int


def cut_window(
    image: Pixels,
    window: Window,
    *,
    crop: int,
    context_pad: int = 0,
    is_square: bool = False,
    is_mirrored: bool = False,
) -> Patch:
    """Return what a crop of `crop` by `crop` pixels shows of the image.

    Args:
        image: (C, H, W).
        window: Its place in the image.
        crop: Rows and columns of the crop.
        context_pad: Pixels of context on each side of the window within the crop.
        is_square: Take the window's longer side for both before stretching it to the crop.
        is_mirrored: Mirror from left to right.

    Raises:
        DataError: Nothing of the image is left, or the window reaches beyond it without context.

    Source: BVLC/caffe src/caffe/layers/window_data_layer.cpp, load_batch.
    """
    (_, height, width) = image.shape
    if context_pad or is_square:
        half_width = (window.right - window.left + 1) / 2
        half_height = (window.bottom - window.top + 1) / 2
        longer = max(half_width, half_height)
        scale = np.float32(crop) / np.float32(crop - 2 * context_pad)
        across = _expand(window.left, half_width, longer if is_square else half_width, scale)
        down = _expand(window.top, half_height, longer if is_square else half_height, scale)
        columns, rows = _clip(*across, width, crop), _clip(*down, height, crop)
    else:
        columns = _Side(window.left, window.right, crop, 0, 0)
        rows = _Side(window.top, window.bottom, crop, 0, 0)
    left, top = columns.after if is_mirrored else columns.before, rows.before
    # Rounding may have made it larger than the crop.
    wide, high = min(columns.size, crop - left), min(rows.size, crop - top)
    fits = all(
        0 <= side.first <= side.last < size for side, size in ((columns, width), (rows, height))
    )
    if not fits or min(wide, high) <= 0:
        raise DataError(
            f"window {window.left} {window.top} {window.right} {window.bottom} leaves nothing of an"
            f" image of {height} rows and {width} columns, or reaches beyond it"
        )
    inside = image[:, rows.first : rows.last + 1, columns.first : columns.last + 1]
    pixels = resize(inside, high, wide)
    return Patch(pixels[:, :, ::-1] if is_mirrored else pixels, top, left)


def _expand(first: int, half: float, wanted: float, scale: np.float32) -> tuple[int, int]:
    """Return the ends of a window that is `wanted` * `scale` on each side of its centre."""
    centre = np.float32(first) + np.float32(half)
    reach = np.float32(wanted) * scale
    return _round(centre - reach), _round(centre + reach)


def _clip(first: int, last: int, size: int, crop: int) -> _Side:
    """Clip a window to an image of `size` pixels, and scale it and what was lost to the crop."""
    before, after = max(0, -first), max(0, last - size + 1)
    scale = np.float32(crop) / np.float32(last - first + 1)
    first, last = first + before, last - after
    clipped, before, after = (
        _round(np.float32(length) * scale) for length in (last - first + 1, before, after)
    )
    return _Side(first, last, clipped, before, after)


def _round(value: np.float32) -> int:
    """Round as C does: halves away from zero."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))
