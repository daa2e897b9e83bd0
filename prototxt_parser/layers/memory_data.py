"""Data that a program hands over in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext, exactly
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape


@final
@register_layer("MemoryData")
class MemoryData(Layer):
    """Batches that the caller feeds: `Net.forward` by name, or pycaffe's `set_input_arrays`.

    Shape: nothing -> data (batch_size, channels, height, width); labels (batch_size), which
      pycaffe, as Caffe, feeds as (batch_size, 1, 1, 1).
    Like PyTorch: the arguments of `forward`.
    Source: caffe/src/caffe/layers/memory_data_layer.cpp, MemoryDataLayer.
    """

    param_fields = ("memory_data_param",)
    bottom_count = exactly(0)
    top_count = exactly(2)
    is_fed = True

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Read the shape."""
        super().__init__(param, bottoms, context)
        memory = param.memory_data_param
        self.shape = (memory.batch_size, memory.channels, memory.height, memory.width)
        if 0 in self.shape:
            raise LayerError(
                "batch_size, channels, height, and width must be specified and positive in "
                f"memory_data_param; received {self.shape}"
            )

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the shapes of data and labels."""
        del bottoms
        return [self.shape, self.shape[:1]]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Refuse: the net feeds this layer's tops itself."""
        raise LayerError(
            "MemoryData needs to be given its data (Net.forward, or set_input_arrays of pycaffe)"
        )
