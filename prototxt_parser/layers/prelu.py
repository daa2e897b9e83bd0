"""The rectifier with learned slopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn
from torch.nn import functional

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.activations import Elementwise
from prototxt_parser.layers.base import LayerContext
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, shape_text


@final
@register_layer("PReLU")
class PReLU(Elementwise):
    """max(x, 0) + a · min(x, 0), with a slope a for each channel, or one if `channel_shared`.

    The slopes start at 0.25 unless `filler` says otherwise. x = 0 counts as negative in the
    gradient.

    Shape: (N, C, …) -> the same.
    Blobs: weight (C), or () if `channel_shared`.
    Like PyTorch: PReLU, though that has one slope by default.
    Source: caffe/src/caffe/layers/prelu_layer.cpp, PReLULayer.
    """

    param_fields = ("prelu_param",)
    weight: nn.Parameter

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Add the slopes."""
        super().__init__(param, bottoms, context)
        if len(bottoms[0]) < 2:
            raise LayerError(
                f"Number of axes of bottom blob must be >= 2; received {shape_text(bottoms[0])}"
            )
        prelu = param.prelu_param
        quarter = caffe_pb2.FillerParameter(type="constant", value=0.25)
        shape = () if prelu.channel_shared else bottoms[0][1:2]
        self.add_blob("weight", shape, prelu.filler if prelu.HasField("filler") else quarter)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the bottom's shape."""
        slopes = tuple(self.weight.shape)
        if slopes and slopes != bottoms[0][1:2]:
            raise LayerError(
                f"{slopes[0]} slopes need as many channels; received {shape_text(bottoms[0])}"
            )
        return super().top_shapes(bottoms)

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        self.top_shapes([tuple(bottoms[0].shape)])
        return functional.prelu(bottoms[0], self.weight)
