"""Elementwise activations: one bottom, one top of the same shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from prototxt_parser.layers.base import Layer
from prototxt_parser.layers.ignored import ENGINE, ignored
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
    Like PyTorch: ReLU and LeakyReLU.
    Source: caffe/src/caffe/layers/relu_layer.cpp, ReLULayer.
    """

    param_fields = ("relu_param",)
    ignored_fields = ignored("relu_param", engine=ENGINE)

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
    Like PyTorch: `sigmoid`.
    Source: caffe/src/caffe/layers/sigmoid_layer.cpp, SigmoidLayer.
    """

    param_fields = ("sigmoid_param",)
    ignored_fields = ignored("sigmoid_param", engine=ENGINE)

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        return torch.sigmoid(bottoms[0])


@final
@register_layer("TanH")
class TanH(Elementwise):
    """tanh(x).

    Shape: any -> the same.
    Like PyTorch: `tanh`.
    Source: caffe/src/caffe/layers/tanh_layer.cpp, TanHLayer.
    """

    param_fields = ("tanh_param",)
    ignored_fields = ignored("tanh_param", engine=ENGINE)

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        return torch.tanh(bottoms[0])


@final
@register_layer("ELU")
class ELU(Elementwise):
    """x where x > 0, else alpha · (exp(x) - 1).

    x = 0 counts as negative in the gradient.

    Shape: any -> the same.
    Differs from Caffe: with alpha < 0, in place, Caffe's gradient takes negative inputs for
    positive ones; here it is the right one.
    Like PyTorch: ELU.
    Source: caffe/src/caffe/layers/elu_layer.cpp, ELULayer.
    """

    param_fields = ("elu_param",)

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        return functional.elu(bottoms[0], self.param.elu_param.alpha)


@final
@register_layer("BNLL")
class BNLL(Elementwise):
    """log(1 + exp(x)), the binomial normal log likelihood; x itself above 50.

    Shape: any -> the same.
    Differs from Caffe: in place, Caffe's gradient is taken at the top instead of the bottom; here
    it is the right one.
    Differs from PyTorch: Softplus is x itself already above 20.
    Source: caffe/src/caffe/layers/bnll_layer.cpp, BNLLLayer.
    """

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        return functional.softplus(bottoms[0], threshold=50)


@final
@register_layer("Swish")
class Swish(Elementwise):
    """x · sigmoid(beta · x).

    Shape: any -> the same.
    Differs from PyTorch: SiLU has no beta.
    Source: caffe/src/caffe/layers/swish_layer.cpp, SwishLayer.
    """

    param_fields = ("swish_param",)

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        return bottoms[0] * torch.sigmoid(bottoms[0] * self.param.swish_param.beta)
