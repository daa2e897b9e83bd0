"""A blob repeated along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, canonical_axis


@final
@register_layer("Tile")
class Tile(Layer):
    """`tiles` copies of the bottom, one behind the other along `axis` (1).

    Shape: (…, K, …) -> (…, tiles · K, …).
    Like PyTorch: `repeat` along one axis.
    Source: caffe/src/caffe/layers/tile_layer.cpp, TileLayer.
    """

    param_fields = ("tile_param",)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Find the axis."""
        super().__init__(param, bottoms, context)
        self.axis = canonical_axis(param.tile_param.axis, bottoms[0])
        self.tiles = param.tile_param.tiles
        if self.tiles <= 0:
            raise LayerError(f"Number of tiles must be positive. Received {self.tiles}")

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the tiled shape."""
        shape, axis = bottoms[0], self.axis
        return [(*shape[:axis], shape[axis] * self.tiles, *shape[axis + 1 :])]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Repeat."""
        return torch.cat([bottoms[0]] * self.tiles, dim=self.axis)
