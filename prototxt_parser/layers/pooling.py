"""Pooling over spatial windows, with Caffe's sizes, divisors and ties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Arity, Layer, LayerContext
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, pooling_size, shape_text

_LOWEST = torch.finfo(torch.float32).min
_MAX = caffe_pb2.PoolingParameter.MAX
_STOCHASTIC = caffe_pb2.PoolingParameter.STOCHASTIC


@final
@register_layer("Pooling")
class Pooling(Layer):
    """Pooling over spatial windows (`MAX`, `AVE`).

    Shape: (N, C, H, W) -> (N, C, H', W'), H' = ceil((H + 2·pad - kernel) / stride) + 1 (floor if
      `round_mode` is FLOOR); when any pad is above 0, one less if the last window would start
      beyond the image and its near padding.
    A second top of MAX is the mask: index h·W + w of the maximum in its plane, as float.
    MAX never picks padding; the first of equal values wins; a window without a number above
    -FLT_MAX gives -FLT_MAX, mask -1. AVE divides by the window clipped to the padded image, so
    padding counts and overhang does not.
    STOCHASTIC is refused: Caffe has it on the GPU only.
    Differs from PyTorch: ceil is the default; with pad 0 and stride > kernel Caffe keeps a last
    window that holds no pixel (MAX -FLT_MAX; AVE 0 here, undefined in Caffe); NaN does not spread.
    Source: caffe/src/caffe/layers/pooling_layer.cpp, PoolingLayer.
    """

    top_count = Arity(1, 2)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Check the geometry."""
        super().__init__(param, bottoms, context)
        self.pool = param.pooling_param
        if self.pool.pool == _STOCHASTIC:
            raise LayerError("pool: STOCHASTIC is not supported; use MAX or AVE")
        if len(param.top) > 1 and self.pool.pool != _MAX:
            raise LayerError("Pooling Layer produces a second top (the mask) for MAX only")
        self.is_global = self.pool.global_pooling
        self._check_forms()
        self.stride = _pair(self.pool, "stride", 1)
        self.pad = _pair(self.pool, "pad", 0)
        self._check_values()

    def _check_forms(self) -> None:
        pool = self.pool
        names = ("kernel_size", "kernel_h", "kernel_w")
        given = [name for name in names if pool.HasField(name)]
        if self.is_global and given:
            raise LayerError("With Global_pooling: true Filter size cannot be specified")
        if not self.is_global and given not in (["kernel_size"], ["kernel_h", "kernel_w"]):
            raise LayerError(
                "Filter size is kernel_size OR kernel_h and kernel_w; not both, and for non-square "
                f"filters both kernel_h and kernel_w are required; received {given}"
            )

    def _check_values(self) -> None:
        if self.is_global and (self.pad != (0, 0) or self.stride != (1, 1)):
            raise LayerError(
                "With Global_pooling: true; only pad = 0 and stride = 1; "
                f"received pad {self.pad}, stride {self.stride}"
            )
        kernel = (1, 1) if self.is_global else self.kernel((0, 0, 0, 0))
        for name, values in (("Filter", kernel), ("Stride", self.stride)):
            if 0 in values:
                raise LayerError(f"{name} dimensions cannot be zero. Received {values}")
        if any(pad >= size for pad, size in zip(self.pad, kernel, strict=True)) and any(self.pad):
            raise LayerError(f"pad must be < kernel; received pad {self.pad}, kernel {kernel}")

    def kernel(self, bottom: Shape) -> tuple[int, int]:
        """Return the window (height, width); the whole plane for `global_pooling`."""
        return bottom[2:4] if self.is_global else _pair(self.pool, "kernel", None)  # type: ignore[return-value]

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the pooled shape, twice if there is a mask."""
        bottom = bottoms[0]
        if len(bottom) != 4:
            raise LayerError(
                "Input must have 4 axes, corresponding to (num, channels, height, width); "
                f"received {shape_text(bottom)}"
            )
        ceil = self.pool.round_mode == caffe_pb2.PoolingParameter.CEIL
        sizes = [
            pooling_size(*values, ceil=ceil, trim=any(self.pad))
            for values in zip(bottom[2:], self.kernel(bottom), self.stride, self.pad, strict=True)
        ]
        if min(sizes) < 1:
            raise LayerError(
                f"the window {self.kernel(bottom)} does not fit into {shape_text(bottom)}"
            )
        return [(*bottom[:2], *sizes)] * self.num_tops

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Pool."""
        x = bottoms[0]
        height, width = self.top_shapes([tuple(x.shape)])[0][2:]
        if self.pool.pool != _MAX:
            return self._average(x, (height, width))
        y, index = self._maximum(x, (height, width))
        return (y, index.to(y.dtype)) if self.num_tops > 1 else y

    def _is_native(self, x: Tensor, size: tuple[int, int]) -> bool:
        """Whether PyTorch's ceil mode gives `size` and takes the padding."""
        kernel = self.kernel(tuple(x.shape))
        native = tuple(
            pooling_size(*values, ceil=True, trim=True)
            for values in zip(x.shape[2:], kernel, self.stride, self.pad, strict=True)
        )
        return native == size and all(
            2 * pad <= window for pad, window in zip(self.pad, kernel, strict=True)
        )

    def _maximum(self, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        if self._is_native(x, size):
            y, index = functional.max_pool2d_with_indices(
                x, self.kernel(tuple(x.shape)), self.stride, self.pad, ceil_mode=True
            )
            if torch.isfinite(y.detach().sum()):  # NaN and -inf, which Caffe skips, would show
                return y, index
        return self._maximum_by_padding(x, size)

    def _maximum_by_padding(self, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Pool a plane padded by hand: any size, any pad; -FLT_MAX stands for what never wins."""
        frame = self._frame(x, size)
        cleaned = torch.where(x > _LOWEST, x, _LOWEST)
        padded = functional.pad(cleaned, frame, value=_LOWEST)
        y, index = functional.max_pool2d_with_indices(
            padded, self.kernel(tuple(x.shape)), self.stride
        )
        row, column = index // padded.shape[3] - frame[2], index % padded.shape[3] - frame[0]
        return y, torch.where(y > _LOWEST, row * x.shape[3] + column, -1)

    def _average(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        kernel = self.kernel(tuple(x.shape))
        if self._is_native(x, size):
            return functional.avg_pool2d(x, kernel, self.stride, self.pad, ceil_mode=True)
        padded = functional.pad(x, self._frame(x, size))
        sums = functional.avg_pool2d(padded, kernel, self.stride, divisor_override=1)
        rows, columns = (self._extents(x.shape[2 + i], kernel[i], size[i], i) for i in (0, 1))
        return sums / torch.outer(rows, columns).to(sums)

    def _frame(self, x: Tensor, size: tuple[int, int]) -> list[int]:
        """Return left, right, top, bottom padding so that exactly `size` windows fit."""
        kernel = self.kernel(tuple(x.shape))
        far = [
            (size[i] - 1) * self.stride[i] + kernel[i] - x.shape[2 + i] - self.pad[i]
            for i in (0, 1)
        ]
        return [self.pad[1], far[1], self.pad[0], far[0]]

    def _extents(self, size: int, kernel: int, windows: int, axis: int) -> Tensor:
        """Return how far each window reaches inside the padded image, at least 1."""
        starts = torch.arange(windows) * self.stride[axis] - self.pad[axis]
        return (starts + kernel).clamp(max=size + self.pad[axis]).sub(starts).clamp(min=1)


def _pair(pool: caffe_pb2.PoolingParameter, name: str, default: int | None) -> tuple[int, int]:
    """Return a (height, width) setting given as one number or as `_h` and `_w`."""
    square = "kernel_size" if name == "kernel" else name
    height, width = f"{name}_h", f"{name}_w"
    pair = [field for field in (height, width) if pool.HasField(field)]
    if len(pair) == 1 or (pair and pool.HasField(square)):
        raise LayerError(
            f"{name} is {square} OR {height} and {width}; not both, and never one of the pair alone"
        )
    if pair:
        return getattr(pool, height), getattr(pool, width)
    value = getattr(pool, square) if pool.HasField(square) or default is None else default
    return value, value
