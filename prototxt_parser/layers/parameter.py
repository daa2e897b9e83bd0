"""A learned blob as a top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from prototxt_parser.layers.base import Layer, LayerContext, exactly
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape


@final
@register_layer("Parameter")
class Parameter(Layer):
    """The blob itself, starting at 0.

    Shape: nothing -> `parameter_param.shape`.
    Blobs: value (`parameter_param.shape`).
    Like Caffe, and only visible with iter_size > 1: the gradient replaces the accumulated one.
    Like PyTorch: a `nn.Parameter`.
    Source: caffe/src/caffe/layers/parameter_layer.cpp, ParameterLayer.
    """

    param_fields = ("parameter_param",)
    bottom_count = exactly(0)
    value: nn.Parameter

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Add the blob."""
        super().__init__(param, bottoms, context)
        shape = tuple(param.parameter_param.shape.dim)
        self.add_blob("value", shape, caffe_pb2.FillerParameter())

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the blob's shape."""
        del bottoms
        return [tuple(self.value.shape)]

    @property
    def held_tops(self) -> dict[int, Tensor]:
        """The blob is the top."""
        return {0: self.value}

    @property
    def replaced_gradients(self) -> frozenset[str]:
        """The blob's gradient is the top's."""
        return frozenset({"value"})

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Return the blob."""
        del bottoms
        return self.value.view_as(self.value)
