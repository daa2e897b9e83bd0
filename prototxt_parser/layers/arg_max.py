"""The places of the largest values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, canonical_axis, count, shape_text


@final
@register_layer("ArgMax")
class ArgMax(Layer):
    """Indices of the `top_k` largest values, largest first, of equal ones the last first.

    With `axis`, along that axis; `out_max_val` gives the values in place of the indices. Without,
    over all of an item; `out_max_val` gives the values beside the indices.

    Shape: with `axis` (…, K, …) -> (…, top_k, …). Without, (N, …) -> (N, 1, top_k), or
      (N, 2, top_k) with `out_max_val`, and further axes of 1 up to the number of the bottom's.
    Differs from Caffe: no gradient passes, where Caffe ends the process.
    Differs from PyTorch: `argmax` gives integers, and leaves open which of equal values it takes.
    Source: caffe/src/caffe/layers/argmax_layer.cpp, ArgMaxLayer.
    """

    param_fields = ("argmax_param",)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Find the axis."""
        super().__init__(param, bottoms, context)
        has_axis = param.argmax_param.HasField("axis")
        self.axis = canonical_axis(param.argmax_param.axis, bottoms[0]) if has_axis else None

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the shape of the indices."""
        shape, settings = bottoms[0], self.param.argmax_param
        axis = canonical_axis(0, shape) if self.axis is None else self.axis
        choice = count(shape, 1) if self.axis is None else shape[axis]
        if not 1 <= settings.top_k <= choice:
            raise LayerError(
                f"top_k must be from 1 to the {choice} values that it chooses from in "
                f"{shape_text(shape)}; received {settings.top_k}"
            )
        if self.axis is not None:
            return [(*shape[:axis], settings.top_k, *shape[axis + 1 :])]
        rows = 2 if settings.out_max_val else 1
        return [(shape[0], rows, settings.top_k, *[1] * (len(shape) - 3))]

    @torch.no_grad()
    def forward(self, *bottoms: Tensor) -> Tensor:
        """Sort."""
        x, settings = bottoms[0], self.param.argmax_param
        (shape,) = self.top_shapes([tuple(x.shape)])
        axis = 1 if self.axis is None else self.axis
        choice = x.flatten(1) if self.axis is None else x
        # Reversed, because a stable sort leaves equal values in their order.
        values, places = choice.flip(axis).sort(dim=axis, descending=True, stable=True)
        values = values.narrow(axis, 0, settings.top_k)
        indices = (choice.shape[axis] - 1 - places.narrow(axis, 0, settings.top_k)).to(x)
        if self.axis is None and settings.out_max_val:
            return torch.stack([indices, values], dim=1).reshape(shape)
        return (values if settings.out_max_val else indices).reshape(shape)
