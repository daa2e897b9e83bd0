"""Elementwise activations: one bottom, one top of the same shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from prototxt_parser.layers.base import Layer
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.shapes import Shape


class Elementwise(Layer):
    """A layer whose top has its bottom's shape."""

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the bottom's shape."""
        return [bottoms[0]]


@final
@register_layer("ReLU")
class ReLU(Elementwise):
    """max(x, 0) + negative_slope · min(x, 0).

    x = 0 counts as negative in the gradient.

    Shape: any -> the same.
    Source: caffe/src/caffe/layers/relu_layer.cpp, ReLULayer.
    """

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        slope = self.param.relu_param.negative_slope
        if slope == 0:
            return functional.relu(bottoms[0])
        return functional.leaky_relu(bottoms[0], slope)


@final
@register_layer("Sigmoid")
class Sigmoid(Elementwise):
    """1 / (1 + exp(-x)).

    Shape: any -> the same.
    Source: caffe/src/caffe/layers/sigmoid_layer.cpp, SigmoidLayer.
    """

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        return torch.sigmoid(bottoms[0])


@final
@register_layer("TanH")
class TanH(Elementwise):
    """tanh(x).

    Shape: any -> the same.
    Source: caffe/src/caffe/layers/tanh_layer.cpp, TanHLayer.
    """

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        return torch.tanh(bottoms[0])
