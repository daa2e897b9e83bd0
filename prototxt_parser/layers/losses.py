"""Losses that compare two tensors: Euclidean, sigmoid cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext, exactly
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.layers.softmax import normalization_mode, normalizer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, count


class Loss(Layer):
    """A loss over two bottoms with the same first dimension; its top is a scalar."""

    bottom_count = exactly(2)
    is_loss = True

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return a scalar."""
        if not bottoms[0] or bottoms[0][:1] != bottoms[1][:1]:
            raise LayerError(
                "The data and label should have the same first dimension. "
                f"Received {bottoms[0]} and {bottoms[1]}"
            )
        return [()]


@final
@register_layer("EuclideanLoss")
class EuclideanLoss(Loss):
    """Σ (a - b)² / (2N). Both bottoms get gradients.

    Shape: (N, …), the same number of values per item -> ().
    Differs from PyTorch: MSELoss divides by the number of values, and not by 2.
    Source: caffe/src/caffe/layers/euclidean_loss_layer.cpp, EuclideanLossLayer.
    """

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return a scalar."""
        if count(bottoms[0], 1) != count(bottoms[1], 1):
            raise LayerError(
                f"Inputs must have the same dimension. Received {bottoms[0]} and {bottoms[1]}"
            )
        return super().top_shapes(bottoms)

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the loss."""
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        difference = bottoms[0] - bottoms[1].reshape(bottoms[0].shape)
        return difference.square().sum() / (2 * bottoms[0].shape[0])


@final
@register_layer("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(Loss):
    """(1/Z) · Σ [max(x, 0) - x·t + log(1 + exp(-|x|))].

    Z by `normalization`: BATCH_SIZE (default here) N, FULL all values, VALID those not ignored,
    NONE 1; never below 1. `ignore_label` compares the truncated target, so 0 ignores every target
    in (-1, 1), as in Caffe. Targets get no gradient.

    Shape: logits and targets with equal numbers of values -> ().
    Differs from PyTorch: BCEWithLogitsLoss divides by the number of values.
    Source: caffe/src/caffe/layers/sigmoid_cross_entropy_loss_layer.cpp.
    """

    param_fields = ("loss_param",)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Find the normalisation."""
        super().__init__(param, bottoms, context)
        modes = caffe_pb2.LossParameter
        self.normalization = normalization_mode(param.loss_param, modes.BATCH_SIZE)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return a scalar."""
        if count(bottoms[0]) != count(bottoms[1]):
            raise LayerError(
                "SIGMOID_CROSS_ENTROPY_LOSS layer inputs must have the same count. "
                f"Received {bottoms[0]} and {bottoms[1]}"
            )
        return super().top_shapes(bottoms)

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the loss."""
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        logits, targets = bottoms[0], bottoms[1].detach().reshape(bottoms[0].shape)
        losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        counted: Tensor | None = None
        if self.param.loss_param.HasField("ignore_label"):
            counted = targets.trunc() != self.param.loss_param.ignore_label
            losses = torch.where(counted, losses, 0)
        return losses.sum() / normalizer(self.normalization, logits, counted, axis=1)
