"""Pooling over spatial windows, with Caffe's sizes, divisors and ties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Arity, Layer, LayerContext
from prototxt_parser.layers.ignored import ENGINE, ignored
from prototxt_parser.layers.pooling_windows import Pair, PoolingWindows
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.layers.stochastic_pooling import refuse_padding, stochastic
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, shape_text

_MAX = caffe_pb2.PoolingParameter.MAX
_STOCHASTIC = caffe_pb2.PoolingParameter.STOCHASTIC


@final
@register_layer("Pooling")
class Pooling(Layer):
    """Pooling over spatial windows (`MAX`, `AVE`, `STOCHASTIC`).

    Shape: (N, C, H, W) -> (N, C, H', W'), H' = ceil((H + 2·pad - kernel) / stride) + 1 (floor if
      `round_mode` is FLOOR); when any pad is above 0, one less if the last window would start
      beyond the image and its near padding.

    A second top of MAX is the mask: index h·W + w of the maximum in its plane, as float.
    MAX never picks padding; the first of equal values wins; a window without a number above
    -FLT_MAX gives -FLT_MAX, mask -1. AVE divides by the window clipped to the padded image, so
    padding counts and overhang does not. STOCHASTIC (see `stochastic_pooling`) takes no padding;
    Caffe has it on the GPU only.

    Differs from PyTorch: ceil is the default; with pad 0 and stride > kernel Caffe keeps a last
    window that holds no pixel (MAX -FLT_MAX; AVE 0 here, undefined in Caffe); NaN does not spread.
    Source: caffe/src/caffe/layers/pooling_layer.cpp, PoolingLayer.
    """

    param_fields = ("pooling_param",)
    ignored_fields = ignored("pooling_param", engine=ENGINE)
    top_count = Arity(1, 2)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Check the geometry."""
        super().__init__(param, bottoms, context)
        self.pool = param.pooling_param
        if len(param.top) > 1 and self.pool.pool != _MAX:
            raise LayerError("Pooling Layer produces a second top (the mask) for MAX only")
        self.is_global = self.pool.global_pooling
        self._check_forms()
        self.stride = _pair(self.pool, "stride", 1)
        self.pad = _pair(self.pool, "pad", 0)
        if self.is_global and (self.pad != (0, 0) or self.stride != (1, 1)):
            raise LayerError(
                "With Global_pooling: true; only pad = 0 and stride = 1; "
                f"received pad {self.pad}, stride {self.stride}"
            )

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

    def windows(self, bottom: Shape) -> PoolingWindows:
        """Return the windows over a bottom; one over the whole plane for `global_pooling`."""
        if len(bottom) != 4:
            raise LayerError(
                "Input must have 4 axes, corresponding to (num, channels, height, width); "
                f"received {shape_text(bottom)}"
            )
        ceil = self.pool.round_mode == caffe_pb2.PoolingParameter.CEIL
        kernel = (bottom[2], bottom[3]) if self.is_global else _pair(self.pool, "kernel", None)
        windows = PoolingWindows(kernel, self.stride, self.pad, ceil)
        if self.pool.pool == _STOCHASTIC:
            refuse_padding(windows)
        return windows

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the pooled shape, twice if there is a mask."""
        sizes = self.windows(bottoms[0]).sizes(bottoms[0])
        return [(*bottoms[0][:2], *sizes)] * self.num_tops

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Pool."""
        x = bottoms[0]
        windows = self.windows(tuple(x.shape))
        if self.pool.pool == _STOCHASTIC:
            return stochastic(windows, x, self.context)
        if self.pool.pool != _MAX:
            return windows.average(x)
        y, index = windows.maximum(x)
        return (y, index.to(y.dtype)) if self.num_tops > 1 else y


def _pair(pool: caffe_pb2.PoolingParameter, name: str, default: int | None) -> Pair:
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
