"""Multiplication by a learned or given tensor, broadcast over the other axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Arity, Layer, LayerContext
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, canonical_axis, count, shape_text


@final
@register_layer("Scale")
class Scale(Layer):
    """y = x · s (+ b): s covers the axes `axis` … `axis + num_axes - 1` of x.

    s is learned (one bottom, filler constant 1 by default) or the second bottom. With
    `bias_term`, b has the shape of s (filler constant 0 by default).

    Shape: any -> the same.
    Blobs: weight (the dims it covers; () if `num_axes` is 0) unless there are two bottoms; bias.
    Like Caffe, and only visible with iter_size > 1: the gradient of s replaces the accumulated one
    when s has as many elements as x, or no axes before it and some after it.
    Differs from PyTorch: s is aligned with x from `axis` on, not from the last axis.
    Source: caffe/src/caffe/layers/scale_layer.cpp, ScaleLayer.
    """

    param_fields = ("scale_param",)
    bottom_count = Arity(1, 2)
    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Work out what s covers and add the blobs."""
        super().__init__(param, bottoms, context)
        scale = param.scale_param
        self.axis = first_axis(scale.axis, bottoms)
        self.learned = len(bottoms) == 1
        self._is_replaced = False
        if self.learned:
            shape = covered_shape(bottoms[0], self.axis, scale.num_axes)
            one = caffe_pb2.FillerParameter(type="constant", value=1)
            self.add_blob("weight", shape, scale.filler if scale.HasField("filler") else one)
        else:
            shape = bottoms[1]
        if scale.bias_term:
            self.add_blob("bias", shape, scale.bias_filler)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the first bottom's shape."""
        factor = tuple(self.weight.shape) if self.learned else bottoms[1]
        check_covered(bottoms[0], factor, self.axis, "scale")
        return [bottoms[0]]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Multiply, and add the bias if there is one."""
        x = bottoms[0]
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        factor = self.weight if self.learned else bottoms[1]
        self._is_replaced = self._replaces_gradient(x)
        if not self.param.scale_param.bias_term:
            return x * broadcast(factor, x, self.axis)
        if self.axis == 1 and factor.dim() == 1:
            return _per_channel(x, factor, self.bias)
        return x * broadcast(factor, x, self.axis) + broadcast(self.bias, x, self.axis)

    @property
    def replaced_gradients(self) -> frozenset[str]:
        """The factor, for bottoms of some shapes."""
        return frozenset({"weight"}) if self._is_replaced else frozenset()

    def _replaces_gradient(self, x: Tensor) -> bool:
        if not self.learned:
            return False
        size, after = self.weight.numel(), count(x.shape, self.axis + self.weight.dim())
        is_row = size > 1 and count(x.shape, 0, self.axis) == 1 and after > 1
        return size == x.numel() or is_row


def _per_channel(x: Tensor, factor: Tensor, bias: Tensor) -> Tensor:
    """Return x · factor + bias along axis 1, by the one kernel that does both ways in one pass.

    Normalising by mean 0 and variance 1 changes nothing; with its sums over all axes but one,
    backward takes two thirds of the time that it takes through a product and a sum.
    """
    zero, one = torch.zeros_like(bias), torch.ones_like(bias)
    return torch.batch_norm(x, factor, bias, zero, one, False, 0.0, 0.0, False)


def first_axis(axis: int, bottoms: Sequence[Shape]) -> int:
    """Return the first axis that is covered; a scalar second bottom covers none, so any will do."""
    scalar = len(bottoms) == 2 and not bottoms[1]
    return 0 if scalar else canonical_axis(axis, bottoms[0])


def covered_shape(bottom: Shape, axis: int, num_axes: int) -> Shape:
    """Return the dims of `bottom` that `num_axes` axes from `axis` on cover; -1 means to the end.

    Raises:
        LayerError: The axes reach beyond the bottom's.
    """
    if num_axes < -1 or axis + num_axes > len(bottom):
        raise LayerError(
            f"num_axes must be -1 or keep axis + num_axes within {len(bottom)} axes; "
            f"received axis {axis}, num_axes {num_axes}"
        )
    return bottom[axis:] if num_axes == -1 else bottom[axis : axis + num_axes]


def check_covered(bottom: Shape, factor: Shape, axis: int, name: str) -> None:
    """Raise LayerError unless the axes of `bottom` from `axis` on begin with those of `factor`."""
    if bottom[axis : axis + len(factor)] != factor:
        raise LayerError(
            f"dimension mismatch between bottom[0]->shape and {name}->shape: "
            f"{shape_text(bottom)} from axis {axis} against {shape_text(factor)}"
        )


def broadcast(factor: Tensor, x: Tensor, axis: int) -> Tensor:
    """Return `factor` with as many axes as `x`, its own starting at `axis`."""
    after = x.dim() - axis - factor.dim()
    return factor.reshape(*factor.shape, *[1] * after)
