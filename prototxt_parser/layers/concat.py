"""Concatenation along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext, at_least
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, canonical_axis


@final
@register_layer("Concat")
class Concat(Layer):
    """Concatenation along `axis` (1), or along the legacy `concat_dim`.

    Shape: n shapes equal but for the axis -> its sizes added.
    Differs from PyTorch: `cat` runs along axis 0 by default.
    Source: caffe/src/caffe/layers/concat_layer.cpp, ConcatLayer.
    """

    param_fields = ("concat_param",)
    bottom_count = at_least(1)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Find the axis."""
        super().__init__(param, bottoms, context)
        concat = param.concat_param
        if concat.HasField("axis") and concat.HasField("concat_dim"):
            raise LayerError("Either axis or concat_dim should be specified; not both.")
        axis = concat.concat_dim if concat.HasField("concat_dim") else concat.axis
        self.axis = canonical_axis(axis, bottoms[0])

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the concatenated shape."""
        first = bottoms[0]
        before, after = first[: self.axis], first[self.axis + 1 :]
        if any(
            len(shape) != len(first)
            or (shape[: self.axis], shape[self.axis + 1 :]) != (before, after)
            for shape in bottoms
        ):
            raise LayerError(
                f"All inputs must have the same shape, except at concat_axis {self.axis}; "
                f"received {list(bottoms)}"
            )
        return [(*before, sum(shape[self.axis] for shape in bottoms), *after)]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Concatenate."""
        return torch.cat(bottoms, dim=self.axis)
