"""Caffe's shape arithmetic, apart from any layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prototxt_parser.errors import LayerError

Shape = tuple[int, ...]

MAX_AXES, INT_MAX = 32, 2**31 - 1


def count(shape: Sequence[int], start: int = 0, end: int | None = None) -> int:
    """Return the product of the dims `start` to `end` (exclusive); 1 for an empty range."""
    return math.prod(shape[start:end])


def check_shape(shape: Sequence[int]) -> None:
    """Refuse a shape that Caffe's blobs cannot have.

    Raises:
        LayerError: A dim is negative, there are too many of them, or too many values.

    Source: caffe/src/caffe/blob.cpp, Blob::Reshape.
    """
    if len(shape) > MAX_AXES:
        raise LayerError(f"a blob has at most {MAX_AXES} axes; received {len(shape)}")
    if any(dim < 0 for dim in shape):
        raise LayerError(f"a blob's dims must be >= 0; received {list(shape)}")
    if count(shape) > INT_MAX:
        raise LayerError(f"blob size exceeds INT_MAX ({INT_MAX}); received {shape_text(shape)}")


def canonical_axis(axis: int, shape: Sequence[int]) -> int:
    """Return `axis` counted from the front; a negative one counts from the back.

    Raises:
        LayerError: `axis` is not in [-n, n) for an n-axis shape.
    """
    if not -len(shape) <= axis < len(shape):
        raise LayerError(
            f"axis {axis} out of range for {len(shape)}-D Blob with shape {shape_text(shape)}"
        )
    return axis % len(shape)


def shape_text(shape: Sequence[int]) -> str:
    """Print a shape as Caffe does: `64 1 28 28 (50176)`, a scalar as `(1)`."""
    return "".join(f"{dim} " for dim in shape) + f"({count(shape)})"


def convolution_size(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Return the output size of a convolution along one axis: rounded towards zero, plus 1.

    Source: caffe/src/caffe/layers/conv_layer.cpp, ConvolutionLayer::compute_output_shape.
    """
    extent = dilation * (kernel - 1) + 1
    return int((size + 2 * pad - extent) / stride) + 1


def pooling_size(size: int, kernel: int, stride: int, pad: int, *, ceil: bool, trim: bool) -> int:
    """Return the output size of a pooling along one axis.

    Args:
        size: Input size.
        kernel: Window size.
        stride: Step between windows.
        pad: Padding on both sides.
        ceil: Round up (Caffe's default) or down.
        trim: Drop a last window that starts beyond the image and its near padding. Caffe does so
            when any pad of the layer is above 0, PyTorch always.

    Source: caffe/src/caffe/layers/pooling_layer.cpp, PoolingLayer::Reshape.
    """
    steps = (size + 2 * pad - kernel) / stride
    out = (math.ceil(steps) if ceil else math.floor(steps)) + 1
    if trim and (out - 1) * stride >= size + pad:
        out -= 1
    return out
