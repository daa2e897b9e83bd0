"""A learned row per index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn
from torch.nn import functional

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext
from prototxt_parser.layers.indices import integers
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape


@final
@register_layer("Embed")
class Embed(Layer):
    """y = W[x] + b; x holds indices as floats, of which the integer part counts.

    Shape: any -> (…, num_output).
    Blobs: weight (input_dim, num_output); bias (num_output), which is there by default.
    Differs from Caffe: an index outside [0, input_dim) is refused (there it reads other memory),
    and asking for the gradient of x gives 0 (there it aborts).
    Differs from PyTorch: Embedding has integer indices and no bias, and draws its weights; here
    they are 0 without a filler.
    Source: caffe/src/caffe/layers/embed_layer.cpp, EmbedLayer.
    """

    param_fields = ("embed_param",)
    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Check the sizes and add the blobs."""
        super().__init__(param, bottoms, context)
        embed = param.embed_param
        for name in ("num_output", "input_dim"):
            if getattr(embed, name) == 0:
                raise LayerError(f"EmbedLayer {name} must be positive; received 0")
        self.add_blob("weight", (embed.input_dim, embed.num_output), embed.weight_filler)
        if embed.bias_term:
            self.add_blob("bias", (embed.num_output,), embed.bias_filler)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the bottom's shape, then `num_output`."""
        return [(*bottoms[0], self.param.embed_param.num_output)]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Look up."""
        indices = integers(bottoms[0], self.param.embed_param.input_dim, "input_dim")
        y = functional.embedding(indices, self.weight)
        return y + self.bias if len(self.blobs) > 1 else y
