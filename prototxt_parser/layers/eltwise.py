"""Sum, product or maximum of equal shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext, at_least
from prototxt_parser.layers.ignored import ignored
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape

_PROD = caffe_pb2.EltwiseParameter.PROD
_MAX = caffe_pb2.EltwiseParameter.MAX


@final
@register_layer("Eltwise")
class Eltwise(Layer):
    """SUM (with `coeff`), PROD or MAX over the bottoms.

    MAX ties: between the first two bottoms the second wins, later ones must be greater; the
    gradient goes to the winner alone. PROD's gradient is the product of the others whatever
    `stable_prod_grad` says: Caffe's other form, y / x, is the same except for NaN at 0.

    Shape: n equal shapes -> the same.
    Differs from PyTorch: `maximum` halves the gradient between equal values.
    Source: caffe/src/caffe/layers/eltwise_layer.cpp, EltwiseLayer.
    """

    param_fields = ("eltwise_param",)
    ignored_fields = ignored(
        "eltwise_param", stable_prod_grad="the gradient is always that of true, also right at 0"
    )
    bottom_count = at_least(2)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Check the coefficients."""
        super().__init__(param, bottoms, context)
        eltwise = param.eltwise_param
        if len(eltwise.coeff) not in (0, len(bottoms)):
            raise LayerError(
                "Eltwise Layer takes one coefficient per bottom blob: "
                f"{len(bottoms)} bottoms, {len(eltwise.coeff)} coeff"
            )
        if eltwise.operation == _PROD and eltwise.coeff:
            raise LayerError("Eltwise layer only takes coefficients for summation.")

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the common shape."""
        if any(shape != bottoms[0] for shape in bottoms):
            raise LayerError(f"All inputs must have the same shape; received {list(bottoms)}")
        return [bottoms[0]]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Combine."""
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        eltwise, top = self.param.eltwise_param, bottoms[0]
        if eltwise.operation == _PROD:
            for bottom in bottoms[1:]:
                top = top * bottom
        elif eltwise.operation == _MAX:
            top = torch.where(top > bottoms[1], top, bottoms[1])
            for bottom in bottoms[2:]:
                top = torch.where(bottom > top, bottom, top)
        else:
            coefficients = eltwise.coeff or [1.0] * len(bottoms)
            top = top * coefficients[0] if coefficients[0] != 1 else top
            for bottom, coefficient in zip(bottoms[1:], coefficients[1:], strict=True):
                top = torch.add(top, bottom, alpha=coefficient)
        return top
