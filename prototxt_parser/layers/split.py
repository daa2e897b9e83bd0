"""One blob for several consumers. Nets get these layers inserted (see `prototxt_parser.splits`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from prototxt_parser.layers.base import Layer, at_least
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.shapes import Shape


@final
@register_layer("Split")
class Split(Layer):
    """Every top is the bottom; the bottom's gradient is the sum of the tops'.

    Shape: any -> n times the same.
    Differs from PyTorch: there every tensor may be used twice.
    Source: caffe/src/caffe/layers/split_layer.cpp, SplitLayer.
    """

    top_count = at_least(1)
    allows_in_place = False
    shares_memory = True

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the bottom's shape for every top."""
        return [bottoms[0]] * self.num_tops

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return views, so that every top has a gradient of its own."""
        return tuple(bottoms[0].view_as(bottoms[0]) for _ in range(self.num_tops))
