"""Limits on values: clipping to a range, comparison with a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.activations import Elementwise
from prototxt_parser.layers.base import LayerContext
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.layers.straight_through import straight_through
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape


@final
@register_layer("Clip")
class Clip(Elementwise):
    """min(max(x, min), max); the gradient passes from `min` to `max`, both included.

    As in Caffe, in place the gradient passes everywhere: Caffe's backward pass sees only the
    clipped values, and what a net learns depends on it.

    Shape: any -> the same.
    Like PyTorch: `clamp`, but for its gradient in place.
    Source: caffe/src/caffe/layers/clip_layer.cpp, ClipLayer.
    """

    param_fields = ("clip_param",)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Check the limits."""
        super().__init__(param, bottoms, context)
        clip = param.clip_param
        if not (clip.HasField("min") and clip.HasField("max")):
            raise LayerError("clip_param must have min and max")
        if clip.min > clip.max:
            raise LayerError(f"min must be <= max; received {clip.min} and {clip.max}")
        self.in_place = param.bottom[0] == param.top[0]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        clip = self.param.clip_param
        top = bottoms[0].clamp(clip.min, clip.max)
        return straight_through(bottoms[0], top) if self.in_place else top


@final
@register_layer("Threshold")
class Threshold(Elementwise):
    """1 where x > `threshold`, else 0.

    Shape: any -> the same.
    Differs from Caffe: no gradient passes, which is the derivative wherever there is one; Caffe
    ends the process when it is asked for it.
    Differs from PyTorch: Threshold keeps the x above it.
    Source: caffe/src/caffe/layers/threshold_layer.cpp, ThresholdLayer.
    """

    param_fields = ("threshold_param",)

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        return (bottoms[0] > self.param.threshold_param.threshold).to(bottoms[0])
