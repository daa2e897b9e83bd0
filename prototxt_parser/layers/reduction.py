"""Sums and means over the last axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from prototxt_parser.layers.base import Layer, LayerContext
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, canonical_axis

_OPERATIONS = caffe_pb2.ReductionParameter


@final
@register_layer("Reduction")
class Reduction(Layer):
    """`coeff` times the SUM, ASUM (of |x|), SUMSQ (of x²) or MEAN over the axes from `axis` (0) on.

    The gradient of |x| at 0 is 0.

    Shape: any -> the dims before `axis`; () if there are none.
    Like PyTorch: `sum` and `mean` over the last axes.
    Source: caffe/src/caffe/layers/reduction_layer.cpp, ReductionLayer.
    """

    param_fields = ("reduction_param",)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Find the axis."""
        super().__init__(param, bottoms, context)
        self.axis = canonical_axis(param.reduction_param.axis, bottoms[0])

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the dims that stay."""
        return [bottoms[0][: self.axis]]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Reduce."""
        values, reduction = bottoms[0].flatten(self.axis), self.param.reduction_param
        if reduction.operation == _OPERATIONS.MEAN:
            return values.mean(dim=-1) * reduction.coeff
        if reduction.operation == _OPERATIONS.ASUM:
            values = values.abs()
        elif reduction.operation == _OPERATIONS.SUMSQ:
            values = values.square()
        return values.sum(dim=-1) * reduction.coeff
