"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn
from torch.nn import functional

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, canonical_axis, count


@final
@register_layer("InnerProduct")
class InnerProduct(Layer):
    """y = x · Wᵀ + b over all axes from `axis` on, flattened in C order.

    Shape: (d_0, …, d_axis, …) -> (d_0, …, d_{axis-1}, num_output).
    Blobs: weight (num_output, K), or (K, num_output) with `transpose`; bias (num_output).
    Differs from PyTorch: Linear runs over the last axis alone and draws its weights; here they are
    0 without a filler.
    Source: caffe/src/caffe/layers/inner_product_layer.cpp, InnerProductLayer.
    """

    param_fields = ("inner_product_param",)
    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Fix the number of inputs and add the blobs."""
        super().__init__(param, bottoms, context)
        linear = param.inner_product_param
        if linear.num_output == 0:
            raise LayerError("num_output must be > 0; received 0")
        self.axis = canonical_axis(linear.axis, bottoms[0])
        self.inputs = count(bottoms[0], self.axis)
        self.num_output, self.transpose = linear.num_output, linear.transpose
        shape = (self.num_output, self.inputs)
        self.add_blob("weight", shape[::-1] if self.transpose else shape, linear.weight_filler)
        if linear.bias_term:
            self.add_blob("bias", (self.num_output,), linear.bias_filler)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the axes before `axis`, then `num_output`."""
        if count(bottoms[0], self.axis) != self.inputs:
            raise LayerError(
                "Input size incompatible with inner product parameters: "
                f"expected {self.inputs} values per item; received {count(bottoms[0], self.axis)}"
            )
        return [(*bottoms[0][: self.axis], self.num_output)]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Multiply."""
        shape = self.top_shapes([tuple(bottoms[0].shape)])[0]
        weight = self.weight.t() if self.transpose else self.weight
        bias = self.bias if len(self.blobs) > 1 else None
        return functional.linear(bottoms[0].reshape(-1, self.inputs), weight, bias).view(shape)
