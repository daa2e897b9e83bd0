"""Resizing images of floats as pycaffe did: without smoothing, unlike today's libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Dims = Sequence[int] | NDArray[np.integer[Any]]
_Values = NDArray[np.float64]

_NEAREST, _LINEAR = 0, 1


def resize_image(im: NDArray[Any], new_dims: Dims, interp_order: int = 1) -> Image:
    """Resize an image.

    With 1 or 3 channels pixels are squares of equal size in both images (half-pixel centres), and
    what lies beyond the border counts as the image's minimum. Otherwise the corner pixels of both
    images coincide. Pixels between the sampled ones are left out, not averaged.

    Args:
        im: (H, W, K).
        new_dims: H' and W'.
        interp_order: 1 for linear interpolation, 0 for the nearest pixel.

    Returns:
        (H', W', K).

    Raises:
        ValueError: Another order, or a size below 1.

    Differs from Caffe: splines (orders 2 to 5) are refused.
    Source: caffe/python/caffe/io.py, resize_image; what skimage.transform.resize and
        scipy.ndimage.zoom then computed.
    """
    if interp_order not in (_NEAREST, _LINEAR):
        raise ValueError(f"interp_order must be 0 (nearest) or 1 (linear); received {interp_order}")
    height, width = (int(size) for size in new_dims)
    if min(height, width, *im.shape) < 1:
        raise ValueError(f"cannot resize an image of {im.shape} to {height} x {width}")
    values = np.asarray(im, np.float64)
    lowest = float(values.min())
    if im.shape[-1] in (1, 3):
        # Beyond the border lies 0, so the minimum is moved there and back.
        values = _resample(values - lowest, 0, _centres(im.shape[0], height), interp_order)
        values = _resample(values, 1, _centres(im.shape[1], width), interp_order) + lowest
    else:
        values = _resample(values, 0, _corners(im.shape[0], height), interp_order)
        values = _resample(values, 1, _corners(im.shape[1], width), interp_order)
    return values.astype(np.float32)


def _centres(size: int, new_size: int) -> _Values:
    """Return where the new pixels' centres lie among the old ones."""
    return (np.arange(new_size, dtype=np.float64) + 0.5) * (size / new_size) - 0.5


def _corners(size: int, new_size: int) -> _Values:
    return np.linspace(0, size - 1, new_size, dtype=np.float64)


def _resample(values: _Values, axis: int, positions: _Values, order: int) -> _Values:
    """Return the values at `positions` along an axis; beyond its ends lies 0."""
    if order == _NEAREST:
        return _take(values, axis, np.floor(positions + 0.5))
    before = np.floor(positions)
    weight = (positions - before).reshape(-1, *[1] * (values.ndim - 1 - axis))
    near, far = _take(values, axis, before), _take(values, axis, before + 1)
    return near * (1 - weight) + far * weight


def _take(values: _Values, axis: int, positions: _Values) -> _Values:
    taken = values.take(positions.astype(int), axis, mode="clip")
    is_outside = (positions < 0) | (positions >= values.shape[axis])
    taken[(slice(None),) * axis + (is_outside,)] = 0
    return taken
