"""The layer that stands for what the caller feeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext, at_least, exactly
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape


@final
@register_layer("Input")
class Input(Layer):
    """Blobs given to `Net.forward` by name.

    Shape: nothing -> `input_param.shape`: one for all tops or one per top. Shapes given to
    `build_net` take precedence, and fill in where the definition has none.
    Like PyTorch: the arguments of `forward`.
    Source: caffe/src/caffe/layers/input_layer.cpp, InputLayer.
    """

    param_fields = ("input_param",)
    bottom_count = exactly(0)
    is_fed = True
    top_count = at_least(1)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Read the shapes."""
        super().__init__(param, bottoms, context)
        shapes = [tuple(shape.dim) for shape in param.input_param.shape]
        if len(shapes) not in (0, 1, self.num_tops):
            raise LayerError(
                "Must specify 'shape' once, once per top blob, or not at all: "
                f"{self.num_tops} tops vs. {len(shapes)} shapes."
            )
        shapes = shapes * self.num_tops if len(shapes) == 1 else shapes or [()] * self.num_tops
        self.shapes = [
            context.input_shapes.get(top, shape)
            for top, shape in zip(param.top, shapes, strict=True)
        ]

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the declared shapes."""
        del bottoms
        return self.shapes

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Refuse: the net feeds this layer's tops itself."""
        raise LayerError(f"the net was run without input for {', '.join(self.param.top)}")
