"""Layers that read a database: here only what they ask for, never the reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from prototxt_parser.data_spec import DataSpec
from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Arity, Layer, LayerContext, exactly
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape


class SourceLayer(Layer):
    """A layer whose tops come from outside the net, described by its `spec`.

    The shapes of its tops follow from the data, so `build_net` must be told them.
    """

    bottom_count = exactly(0)
    is_fed = True

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Take the shapes of the tops from the context."""
        super().__init__(param, bottoms, context)
        missing = [top for top in param.top if top not in context.input_shapes]
        if missing:
            raise LayerError(
                f"the shape of {', '.join(missing)} depends on the data: give build_net "
                "input_shapes for it, or let the trainer open the source"
            )
        self.spec = DataSpec(param, context.phase)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the shapes of the data."""
        del bottoms
        return [self.context.input_shapes[top] for top in self.param.top]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Refuse: the net feeds this layer's tops itself."""
        raise LayerError(f"the net was run without data for {', '.join(self.param.top)}")


@final
@register_layer("Data")
class Data(SourceLayer):
    """Items of an LMDB in key order, wrapping at the end.

    Shape: nothing -> (batch_size, C, H, W) after the transform; (batch_size) labels.
    Source: caffe/src/caffe/layers/data_layer.cpp, DataLayer.
    """

    top_count = Arity(1, 2)
