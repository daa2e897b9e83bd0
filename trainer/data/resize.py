"""Resizing images as OpenCV, and so Caffe, does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Integers = NDArray[np.int32]

_ONE = np.float32(2**11)  # weights have 11 bits behind the point


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """Resize by bilinear interpolation with half-pixel centres and without antialiasing.

    Args:
        image: Not empty.
        height: Rows wanted; at least 1.
        width: Columns wanted; at least 1.

    Shape: (C, H, W) -> (C, height, width).

    Differs from PyTorch: `interpolate(mode="bilinear", align_corners=False)` of floats, rounded,
    differs in about every tenth pixel by one level; OpenCV's weights have 11 bits.

    Source: OpenCV modules/imgproc/src/resize.cpp, INTER_LINEAR on 8-bit images.
    """
    rows, columns = image.shape[1:]
    upper, row_weights = _taps(rows, height)
    left, column_weights = _taps(columns, width)
    outside = (left < 0) | (left >= columns - 1)
    column_weights[:, outside] = np.array([[_ONE], [0]])
    left = left.clip(0, columns - 1)
    right = np.minimum(left + 1, columns - 1)

    def sums(row: NDArray[np.intp], weights: Integers) -> Integers:
        lines = image[:, row.clip(0, rows - 1)].astype(np.int32)
        across = lines[:, :, left] * column_weights[0] + lines[:, :, right] * column_weights[1]
        # These shifts are OpenCV's: its products fit 16 bits.
        weighted: Integers = (across >> 4) * weights[:, None] >> 16
        return weighted

    total = sums(upper, row_weights[0]) + sums(upper + 1, row_weights[1])
    return (total + 2 >> 2).astype(np.uint8)


def _taps(size: int, wanted: int) -> tuple[NDArray[np.intp], Integers]:
    """Return the pixel before each wanted one, and the weights of that pixel and the next."""
    scale = 1 / (wanted / size)
    place = ((np.arange(wanted) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(place)
    beyond = place - first
    weights = np.stack([np.float32(1) - beyond, beyond]) * _ONE
    return first.astype(np.intp), np.rint(weights).astype(np.int32)
