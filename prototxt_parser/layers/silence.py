"""An end for blobs that nothing else consumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from prototxt_parser.layers.base import Layer, at_least, exactly
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.shapes import Shape


@final
@register_layer("Silence")
class Silence(Layer):
    """Nothing: its bottoms are no outputs of the net, and get no gradient from here.

    Shape: n blobs of any shape -> no top.
    Differs from PyTorch: there every tensor may be left unused.
    Source: caffe/src/caffe/layers/silence_layer.cpp, SilenceLayer.
    """

    bottom_count = at_least(1)
    top_count = exactly(0)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return no shape."""
        del bottoms
        return []

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return nothing."""
        del bottoms
        return ()
