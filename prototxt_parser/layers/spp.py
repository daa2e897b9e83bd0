"""Spatial pyramid pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext
from prototxt_parser.layers.ignored import ENGINE, ignored
from prototxt_parser.layers.pooling_windows import PoolingWindows
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.layers.stochastic_pooling import refuse_padding, stochastic
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, shape_text

_STOCHASTIC = caffe_pb2.SPPParameter.STOCHASTIC


@final
@register_layer("SPP")
class SPP(Layer):
    """Pooling (`MAX`, `AVE`, `STOCHASTIC`) into 1, 4, 16, … windows per channel, side by side.

    Level l has windows of ceil(size / 2^l) per axis, next to each other, the excess split between
    both sides as padding; arithmetic and refusals are those of Pooling.

    Shape: (N, C, H, W) -> (N, C·(1 + 4 + … + 4^(pyramid_height - 1))), level by level, within a
      level by channel; (N, C, 1, 1) for `pyramid_height` 1.
    An image too small for a level (padding as large as the window) is refused as in Caffe, and so
    is STOCHASTIC where a level has padding.
    Differs from PyTorch: the windows of adaptive pooling differ in size and need no padding.
    Source: caffe/src/caffe/layers/spp_layer.cpp, SPPLayer.
    """

    param_fields = ("spp_param",)
    ignored_fields = ignored("spp_param", engine=ENGINE)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Check the settings."""
        super().__init__(param, bottoms, context)
        self.spp = param.spp_param
        if self.spp.pyramid_height == 0:
            raise LayerError("pyramid_height must be > 0; received 0")

    def levels(self, bottom: Shape) -> list[PoolingWindows]:
        """Return the windows of every level over a bottom."""
        if len(bottom) != 4:
            raise LayerError(
                "Input must have 4 axes, corresponding to (num, channels, height, width); "
                f"received {shape_text(bottom)}"
            )
        levels = [_windows(bottom, 2**level) for level in range(self.spp.pyramid_height)]
        if self.spp.pool == _STOCHASTIC:
            for windows in levels:
                refuse_padding(windows)
        return levels

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the shape of all levels together."""
        bottom = bottoms[0]
        sizes = [windows.sizes(bottom) for windows in self.levels(bottom)]
        if len(sizes) == 1:
            return [(*bottom[:2], *sizes[0])]
        return [(bottom[0], bottom[1] * sum(height * width for height, width in sizes))]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Pool every level."""
        x = bottoms[0]
        tops = [self._pooled(windows, x) for windows in self.levels(tuple(x.shape))]
        return tops[0] if len(tops) == 1 else torch.cat([top.flatten(1) for top in tops], dim=1)

    def _pooled(self, windows: PoolingWindows, x: Tensor) -> Tensor:
        if self.spp.pool == _STOCHASTIC:
            return stochastic(windows, x, self.context)
        if self.spp.pool == caffe_pb2.SPPParameter.AVE:
            return windows.average(x)
        return windows.maximum(x)[0]


def _windows(bottom: Shape, bins: int) -> PoolingWindows:
    """Return `bins` windows per axis. Source: SPPLayer::GetPoolingParam."""
    kernel = (math.ceil(bottom[2] / bins), math.ceil(bottom[3] / bins))
    pad = (
        (kernel[0] * bins - bottom[2] + 1) // 2,
        (kernel[1] * bins - bottom[3] + 1) // 2,
    )
    return PoolingWindows(kernel, kernel, pad)
