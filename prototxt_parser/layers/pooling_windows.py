"""Pooling over spatial windows: the arithmetic that Pooling and SPP share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from prototxt_parser.errors import LayerError
from prototxt_parser.shapes import INT_MAX, Shape, pooling_size, shape_text

_LOWEST = torch.finfo(torch.float32).min

Pair = tuple[int, int]


@dataclass(frozen=True)
class PoolingWindows:
    """Windows over the last two axes of (N, C, H, W); all settings are (height, width).

    Attributes:
        kernel: Size of a window.
        stride: Step between windows.
        pad: Padding on both sides.
        ceil: Round the number of windows up, or down.

    Raises:
        LayerError: A zero size or stride, or padding that reaches as far as the window.
    """

    kernel: Pair
    stride: Pair
    pad: Pair
    ceil: bool = True

    def __post_init__(self) -> None:
        for name, values in (("Filter", self.kernel), ("Stride", self.stride)):
            if 0 in values:
                raise LayerError(f"{name} dimensions cannot be zero. Received {values}")
            if max(values) > INT_MAX:
                raise LayerError(f"{name} dimensions must be <= {INT_MAX}. Received {values}")
        pairs = zip(self.pad, self.kernel, strict=True)
        if any(self.pad) and any(pad >= size for pad, size in pairs):
            raise LayerError(f"pad must be < kernel; received pad {self.pad}, kernel {self.kernel}")

    def sizes(self, bottom: Shape) -> Pair:
        """Return how many windows there are along each axis of a bottom (N, C, H, W).

        Raises:
            LayerError: None fits.
        """
        trim = any(self.pad)
        height, width = self._sizes(bottom, ceil=self.ceil, trim=trim)
        if min(height, width) < 1:
            raise LayerError(f"the window {self.kernel} does not fit into {shape_text(bottom)}")
        return height, width

    def maximum(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return each window's maximum and its index h·W + w, -FLT_MAX and -1 where it has none."""
        if self._is_native(x):
            y, index = functional.max_pool2d_with_indices(
                x, self.kernel, self.stride, self.pad, ceil_mode=True
            )
            if torch.isfinite(y.detach().sum()):  # NaN and -inf, which Caffe skips, would show
                return y, index
        return self._maximum_by_padding(x)

    def average(self, x: Tensor) -> Tensor:
        """Return each window's sum divided by its part inside the padded image."""
        if self._is_native(x):
            return functional.avg_pool2d(x, self.kernel, self.stride, self.pad, ceil_mode=True)
        padded = functional.pad(x, self._frame(x))
        sums = functional.avg_pool2d(padded, self.kernel, self.stride, divisor_override=1)
        rows, columns = (self._extents(x, axis) for axis in (0, 1))
        return sums / torch.outer(rows, columns).to(sums)

    def pixels(self, x: Tensor) -> Tensor:
        """Return the pixels of each window, (N, C, H', W', pixels) row by row; 0 outside of x."""
        padded = functional.pad(x, self._frame(x))
        rows = padded.unfold(2, self.kernel[0], self.stride[0])
        return rows.unfold(3, self.kernel[1], self.stride[1]).flatten(-2)

    def _sizes(self, bottom: Shape, *, ceil: bool, trim: bool) -> Pair:
        height, width = (
            pooling_size(*values, ceil=ceil, trim=trim)
            for values in zip(bottom[2:], self.kernel, self.stride, self.pad, strict=True)
        )
        return height, width

    def _is_native(self, x: Tensor) -> bool:
        """Whether PyTorch's ceil mode gives the same windows and takes the padding."""
        shape = tuple(x.shape)
        return self._sizes(shape, ceil=True, trim=True) == self.sizes(shape) and all(
            2 * pad <= window for pad, window in zip(self.pad, self.kernel, strict=True)
        )

    def _maximum_by_padding(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pool a plane padded by hand: any size, any pad; -FLT_MAX stands for what never wins."""
        frame = self._frame(x)
        cleaned = torch.where(x > _LOWEST, x, _LOWEST)
        padded = functional.pad(cleaned, frame, value=_LOWEST)
        y, index = functional.max_pool2d_with_indices(padded, self.kernel, self.stride)
        row, column = index // padded.shape[3] - frame[2], index % padded.shape[3] - frame[0]
        return y, torch.where(y > _LOWEST, row * x.shape[3] + column, -1)

    def _frame(self, x: Tensor) -> list[int]:
        """Return left, right, top, bottom padding so that exactly the windows fit."""
        size = self.sizes(tuple(x.shape))
        far = [
            (size[i] - 1) * self.stride[i] + self.kernel[i] - x.shape[2 + i] - self.pad[i]
            for i in (0, 1)
        ]
        return [self.pad[1], far[1], self.pad[0], far[0]]

    def _extents(self, x: Tensor, axis: int) -> Tensor:
        """Return how far each window reaches inside the padded image, at least 1."""
        windows, pad = self.sizes(tuple(x.shape))[axis], self.pad[axis]
        starts = torch.arange(windows) * self.stride[axis] - pad
        end = x.shape[2 + axis] + pad
        return (starts + self.kernel[axis]).clamp(max=end).sub(starts).clamp(min=1)
