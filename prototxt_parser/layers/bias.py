"""Addition of a learned or given tensor, broadcast over the other axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from prototxt_parser.layers.base import Arity, Layer, LayerContext
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.layers.scale import broadcast, check_covered, covered_shape, first_axis
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape


@final
@register_layer("Bias")
class Bias(Layer):
    """y = x + b: b covers the axes `axis` … `axis + num_axes - 1` of x.

    b is learned (one bottom, filler constant 0 by default) or the second bottom.

    Shape: any -> the same.
    Blobs: bias (the dims it covers; () if `num_axes` is 0) unless there are two bottoms.
    Differs from PyTorch: b is aligned with x from `axis` on, not from the last axis.
    Source: caffe/src/caffe/layers/bias_layer.cpp, BiasLayer.
    """

    param_fields = ("bias_param",)
    bottom_count = Arity(1, 2)
    bias: nn.Parameter

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Work out what b covers and add the blob."""
        super().__init__(param, bottoms, context)
        self.axis = first_axis(param.bias_param.axis, bottoms)
        self.learned = len(bottoms) == 1
        if self.learned:
            shape = covered_shape(bottoms[0], self.axis, param.bias_param.num_axes)
            self.add_blob("bias", shape, param.bias_param.filler)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the first bottom's shape."""
        bias = tuple(self.bias.shape) if self.learned else bottoms[1]
        check_covered(bottoms[0], bias, self.axis, "bias")
        return [bottoms[0]]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Add."""
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        bias = self.bias if self.learned else bottoms[1]
        return bottoms[0] + broadcast(bias, bottoms[0], self.axis)
