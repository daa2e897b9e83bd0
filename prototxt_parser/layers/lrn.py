"""Local response normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor
from torch.nn import functional

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.activations import Elementwise
from prototxt_parser.layers.base import LayerContext
from prototxt_parser.layers.ignored import ENGINE, ignored
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, shape_text


@final
@register_layer("LRN")
class LRN(Elementwise):
    """y = x · s^(-beta).

    ACROSS_CHANNELS: s = k + (alpha / n) · Σ x² over n neighbouring channels.
    WITHIN_CHANNEL: s = 1 + alpha · (mean of x² over the n × n neighbourhood, zeros included);
    `k` is ignored, as in Caffe.

    Shape: (N, C, H, W) -> the same.
    Differs from PyTorch: LocalResponseNorm is ACROSS_CHANNELS; there is no WITHIN_CHANNEL.
    Source: caffe/src/caffe/layers/lrn_layer.cpp, LRNLayer.
    """

    param_fields = ("lrn_param",)
    ignored_fields = ignored("lrn_param", engine=ENGINE)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Check the window."""
        super().__init__(param, bottoms, context)
        if param.lrn_param.local_size % 2 == 0:
            raise LayerError(
                "LRN only supports odd values for local_size; "
                f"received {param.lrn_param.local_size}"
            )

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the bottom's shape."""
        if len(bottoms[0]) != 4:
            raise LayerError(
                "Input must have 4 axes, corresponding to (num, channels, height, width); "
                f"received {shape_text(bottoms[0])}"
            )
        return super().top_shapes(bottoms)

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Normalise."""
        x, lrn = bottoms[0], self.param.lrn_param
        n = lrn.local_size
        if lrn.norm_region == caffe_pb2.LRNParameter.ACROSS_CHANNELS:
            return functional.local_response_norm(x, n, lrn.alpha, lrn.beta, lrn.k)
        mean_square = functional.avg_pool2d(x * x, n, stride=1, padding=(n - 1) // 2)
        return x * (1 + lrn.alpha * mean_square).pow(-lrn.beta)
