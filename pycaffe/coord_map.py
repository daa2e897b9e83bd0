"""How coordinates of one top lie in another, to crop one to the other: see `crop`.

A map (axis, scale, shift) takes coordinate x of a layer's bottom to scale · x + shift of its top;
`axis` is the one before the spatial axes (None where any will do), scale and shift have one value
per spatial axis, or one for all.
Source: caffe/python/caffe/coord_map.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycaffe.net_spec import Function, Top
from pycaffe.net_spec import layers as L

Values = NDArray[np.float64]
CoordMap = tuple[int | None, Values, Values]

_SAME_COORDINATES = frozenset(
    (
        "AbsVal",
        "BatchNorm",
        "Bias",
        "BNLL",
        "Dropout",
        "Eltwise",
        "ELU",
        "Log",
        "LRN",
        "Exp",
        "MVN",
        "Power",
        "ReLU",
        "PReLU",
        "Scale",
        "Sigmoid",
        "Split",
        "TanH",
        "Threshold",
    )
)
_ONE_VALUE_SETTINGS = frozenset(
    f"{name}_{axis}" for name in ("kernel", "stride", "pad") for axis in "hw"
)


class UndefinedMapException(Exception):
    """A layer has no map between coordinates of its top and of its bottom."""


class AxisMismatchException(Exception):
    """Maps of different axes cannot be joined."""


def coord_map(fn: Function) -> CoordMap:
    """Return the map of a layer.

    Raises:
        UndefinedMapException: It has none.
        AssertionError: Its window is given by `kernel_h` and the like, which is not supported.
    """
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, kernel, stride, pad = _window(fn)
        return axis, 1 / stride, (pad - (kernel - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, kernel, stride, pad = _window(fn)
        return axis, stride, (kernel - 1) / 2 - pad
    if fn.type_name in _SAME_COORDINATES:
        return _identity()
    if fn.type_name == "Crop":
        settings = fn.params.get("crop_param", fn.params)
        return int(settings.get("axis", 2)) - 1, _values(1), -_values(settings.get("offset", 0))
    raise UndefinedMapException(f"{fn.type_name} has no coordinate map")


def compose(base_map: CoordMap, next_map: CoordMap) -> CoordMap:
    """Return the map that applies `next_map`, then `base_map`.

    Raises:
        AxisMismatchException: Both have an axis, and not the same.
    """
    axis, scale, shift = base_map
    next_axis, next_scale, next_shift = next_map
    if None not in (axis, next_axis) and axis != next_axis:
        raise AxisMismatchException(f"maps of axis {axis} and of axis {next_axis}")
    return (
        next_axis if axis is None else axis,
        scale * next_scale,
        scale * next_shift + shift,
    )


def inverse(coord_map: CoordMap) -> CoordMap:
    """Return the map back."""
    axis, scale, shift = coord_map
    return axis, 1 / scale, -shift / scale


def coord_map_from_to(top_from: Top, top_to: Top) -> CoordMap:
    """Return the map from coordinates of `top_from` to those of `top_to`.

    It goes by way of a blob that both come from; which one makes no difference in a net whose
    branches fit together.

    Raises:
        RuntimeError: Layers with a map connect them by no such blob.
    """
    from_maps = dict(_walk(top_from))
    for top, to_map in _walk(top_to):
        if top in from_maps:
            return compose(to_map, inverse(from_maps[top]))
    raise RuntimeError("Could not compute map between tops; are they connected by spatial layers?")


def crop(top_from: Top, top_to: Top) -> Any:
    """Return a Crop layer that gives `top_from` the size of `top_to`, aligned with it.

    Raises:
        RuntimeError, AxisMismatchException: They cannot be mapped.
        AssertionError: Their scales differ, or the offset is negative or not whole.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    _require(np.allclose(scale, 1), f"scale mismatch on crop (a = {scale})")
    _require(bool((shift <= 0).all()), f"cannot crop negative offset (b = {shift})")
    whole = np.round(shift)
    _require(np.allclose(whole, shift), f"cannot crop noninteger offset (b = {shift})")
    if axis is None:
        raise AxisMismatchException("no layer on the way says which axis to crop from")
    offset = [-int(value) for value in whole]
    return L.Crop(top_from, top_to, crop_param={"axis": axis + 1, "offset": offset})


def _walk(end: Top) -> Iterator[tuple[Top, CoordMap]]:
    """Yield `end` and the tops that it comes from, each with the map from there to `end`."""
    seen, frontier = {end}, deque([(end, _identity())])
    while frontier:
        top, to_end = frontier.popleft()
        yield top, to_end
        try:
            step = compose(to_end, coord_map(top.fn))
        except UndefinedMapException:
            continue
        # The second bottom of a Crop gives a size, and no coordinates.
        bottoms = top.fn.inputs[:1] if top.fn.type_name == "Crop" else top.fn.inputs
        frontier.extend((bottom, step) for bottom in bottoms if bottom not in seen)
        seen.update(bottoms)


def _window(fn: Function) -> tuple[int, Values, Values, Values]:
    """Return axis, extent, stride and pad of a layer's windows."""
    message = "pooling_param" if fn.type_name == "Pooling" else "convolution_param"
    settings = fn.params.get(message, fn.params)
    legacy = sorted(_ONE_VALUE_SETTINGS.intersection(settings))
    _require(not legacy, f"cropping does not support legacy _h/_w params; received {legacy}")
    if "kernel_size" not in settings:
        raise UndefinedMapException(f"{fn.type_name} without kernel_size has no coordinate map")
    dilation = _values(settings.get("dilation", 1))
    kernel = (_values(settings["kernel_size"]) - 1) * dilation + 1
    stride, pad = _values(settings.get("stride", 1)), _values(settings.get("pad", 0))
    return int(settings.get("axis", 1)), kernel, stride, pad


def _values(value: Any) -> Values:
    return np.array(value, np.float64, ndmin=1)


def _identity() -> CoordMap:
    return None, _values(1), _values(0)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
