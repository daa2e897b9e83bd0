"""Losses of scores or probabilities against class labels, without a softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from prototxt_parser.layers.labels import check_labels, class_labels
from prototxt_parser.layers.losses import Loss
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.layers.straight_through import straight_through
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, count

LEAST_PROBABILITY = 1e-20  # what Caffe takes the logarithm of in place of anything smaller


class LabelLoss(Loss):
    """A loss of (N, K) values, K counting all axes but the first, and one class label per item.

    `loss_param` has no effect, as in Caffe: all labels count, and the sum is divided by N.
    """

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return a scalar."""
        check_labels((*bottoms[0][:1], count(bottoms[0], 1)), bottoms[1], 1)
        return super().top_shapes(bottoms)

    def rows_and_labels(self, bottoms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the values (N, K) and the labels (N, 1) as integers."""
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        rows = bottoms[0].flatten(1)
        labels, _ = class_labels(bottoms[1], rows, 1, caffe_pb2.LossParameter())
        return rows, labels


@final
@register_layer("HingeLoss")
class HingeLoss(LabelLoss):
    """1/N · Σ m (L1) or 1/N · Σ m² (L2), the margins m = max(0, 1 - x_label), max(0, 1 + x_other).

    Where a margin is just 0 so is the gradient.

    Shape: scores (N, …) and N labels -> ().
    Differs from PyTorch: one class against all others, each with a margin of 1 around 0;
    MultiMarginLoss compares the classes with each other.
    Raises LayerError for a label that is no class; Caffe's behaviour is undefined there.
    Source: caffe/src/caffe/layers/hinge_loss_layer.cpp, HingeLossLayer.
    """

    param_fields = ("hinge_loss_param",)

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the loss."""
        scores, labels = self.rows_and_labels(bottoms)
        signs = torch.ones_like(scores).scatter(1, labels, -1)
        margins = functional.relu(1 + signs * scores)
        if self.param.hinge_loss_param.norm == caffe_pb2.HingeLossParameter.L2:
            margins = margins.square()
        return margins.sum() / scores.shape[0]


@final
@register_layer("MultinomialLogisticLoss")
class MultinomialLogisticLoss(LabelLoss):
    """-1/N · Σ log(max(p_label, 1e-20)), for probabilities p.

    The gradient is -1 / (N · max(p_label, 1e-20)), also where the maximum is 1e-20, as in Caffe.

    Shape: probabilities (N, …) and N labels -> ().
    Differs from PyTorch: NLLLoss takes logarithms of probabilities.
    Raises LayerError for a label that is no class; Caffe's behaviour is undefined there.
    Source: caffe/src/caffe/layers/multinomial_logistic_loss_layer.cpp.
    """

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the loss."""
        probabilities, labels = self.rows_and_labels(bottoms)
        chosen = probabilities.gather(1, labels)
        clamped = straight_through(chosen, chosen.clamp(min=LEAST_PROBABILITY))
        return -clamped.log().sum() / chosen.shape[0]
