"""The contrastive loss of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, exactly
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.shapes import Shape, count

_SMALL_DISTANCE = 1e-4  # Caffe adds it to the distance that its gradient divides by


@final
@register_layer("ContrastiveLoss")
class ContrastiveLoss(Layer):
    """1/(2N) · Σ [d² for similar pairs, max(margin - d, 0)² for others], d = ‖a - b‖₂.

    With `legacy_version` the others count max(margin - d², 0). The gradient of the others divides
    by d + 1e-4, as in Caffe, so that it exists at d = 0. At the margin it is 0.

    Shape: a and b (N, C, …), y (N, …) with non-zero meaning similar -> ().
    Differs from PyTorch: there is no such loss; CosineEmbeddingLoss measures angles.
    Source: caffe/src/caffe/layers/contrastive_loss_layer.cpp, ContrastiveLossLayer.
    """

    param_fields = ("contrastive_loss_param",)
    bottom_count = exactly(3)
    is_loss = True

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return a scalar."""
        if bottoms[0][:2] != bottoms[1][:2] or count(bottoms[2]) != bottoms[0][0]:
            raise LayerError(
                "expected two bottoms of equal (N, C) and N similarity labels; "
                f"received {list(bottoms)}"
            )
        return [()]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the loss."""
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        number, settings = bottoms[0].shape[0], self.param.contrastive_loss_param
        difference = (bottoms[0] - bottoms[1]).reshape(number, -1)
        similar = bottoms[2].detach().reshape(number).trunc() != 0
        square = difference.square().sum(dim=1)
        if settings.legacy_version:
            apart = functional.relu(settings.margin - square)
        else:
            apart = functional.relu(settings.margin - _distance(square)).square()
        return torch.where(similar, square, apart).sum() / (2 * number)


def _distance(square: Tensor) -> Tensor:
    root: Tensor = _Distance.apply(square)  # type: ignore[no-untyped-call]
    return root


class _Distance(torch.autograd.Function):
    """Square root whose gradient, 1 / (2·(root + 1e-4)), is Caffe's and finite at 0."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, square: Tensor) -> Tensor:
        root = square.sqrt()
        context.save_for_backward(root)
        return root

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        (root,) = context.saved_tensors  # type: ignore[attr-defined]
        gradient: Tensor = gradients[0] / (2 * (root + _SMALL_DISTANCE))
        return gradient
