"""Dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.activations import Elementwise
from prototxt_parser.layers.base import LayerContext
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape


@final
@register_layer("Dropout")
class Dropout(Elementwise):
    """TRAIN: each value survives with probability 1 - ratio, divided by it. TEST: the identity.

    Shape: any -> the same.
    Differs from PyTorch: the layer's phase decides, not `train()`/`eval()`; the mask comes from
    the net's own random source, so that a resumed run repeats it.
    Source: caffe/src/caffe/layers/dropout_layer.cpp, DropoutLayer.
    """

    param_fields = ("dropout_param",)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Check the ratio: 0 is allowed here (and does nothing), Caffe wants it above 0."""
        super().__init__(param, bottoms, context)
        if not 0 <= param.dropout_param.dropout_ratio < 1:
            raise LayerError(
                f"dropout_ratio must be in [0, 1); received {param.dropout_param.dropout_ratio}"
            )

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Drop values in the TRAIN phase."""
        x, ratio = bottoms[0], self.param.dropout_param.dropout_ratio
        if self.context.phase != caffe_pb2.TRAIN or ratio == 0:
            return x
        generator = self.context.random.generator(x.device)
        mask = torch.empty_like(x).bernoulli_(1 - ratio, generator=generator)
        return x * mask.div_(1 - ratio)
