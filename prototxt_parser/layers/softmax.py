"""Softmax and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.activations import Elementwise
from prototxt_parser.layers.base import Arity, Layer, LayerContext, exactly
from prototxt_parser.layers.ignored import ENGINE, ignored
from prototxt_parser.layers.labels import check_labels, class_labels
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.layers.straight_through import straight_through
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, canonical_axis

_LOG_SMALLEST = torch.log(torch.tensor(torch.finfo(torch.float32).tiny)).item()


@final
@register_layer("Softmax")
class Softmax(Elementwise):
    """exp(x) / Σ exp(x) along `axis` (1).

    Shape: any -> the same.
    Like PyTorch: `softmax`, along axis 1 by default.
    Source: caffe/src/caffe/layers/softmax_layer.cpp, SoftmaxLayer.
    """

    param_fields = ("softmax_param",)
    ignored_fields = ignored("softmax_param", engine=ENGINE)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Find the axis."""
        super().__init__(param, bottoms, context)
        self.axis = canonical_axis(param.softmax_param.axis, bottoms[0])

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the probabilities."""
        return torch.softmax(bottoms[0], dim=self.axis)


@final
@register_layer("SoftmaxWithLoss")
class SoftmaxWithLoss(Layer):
    """-(1/Z) · Σ log(max(p_label, FLT_MIN)), p the softmax of the scores along `axis`.

    Z by `normalization`: VALID (default) the positions whose label is not `ignore_label`, FULL all
    positions, BATCH_SIZE the product of the axes before `axis`, NONE 1; never below 1. The legacy
    `normalize` counts where `normalization` is absent. The gradient does not see the FLT_MIN.

    Shape: scores (N, K, …) and labels (any shape with N · … values) -> (); a second top gets the
      probabilities, which Caffe documents but cannot build.
    Raises LayerError for a label that is no class; Caffe's behaviour is undefined there.
    Differs from PyTorch: CrossEntropyLoss has integer labels, no lower limit for p, and is NaN
    where no label counts.
    Source: caffe/src/caffe/layers/softmax_loss_layer.cpp, SoftmaxWithLossLayer.
    """

    param_fields = ("softmax_param", "loss_param")
    ignored_fields = ignored("softmax_param", engine=ENGINE)
    bottom_count = exactly(2)
    top_count = Arity(1, 2)
    is_loss = True

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Find the axis and the normalisation."""
        super().__init__(param, bottoms, context)
        self.axis = canonical_axis(param.softmax_param.axis, bottoms[0])
        self.normalization = normalization_mode(param.loss_param, caffe_pb2.LossParameter.VALID)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return a scalar, and the scores' shape for a second top."""
        if bottoms[0][0] != bottoms[1][0]:
            raise LayerError(
                "The data and label should have the same first dimension. "
                f"Received {bottoms[0]} and {bottoms[1]}"
            )
        check_labels(bottoms[0], bottoms[1], self.axis)
        return [(), bottoms[0]][: self.num_tops]

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute the loss."""
        scores = bottoms[0]
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        labels, counted = class_labels(bottoms[1], scores, self.axis, self.param.loss_param)
        log_probability = torch.log_softmax(scores, dim=self.axis)
        chosen = log_probability.gather(self.axis, labels)
        clamped = straight_through(chosen, chosen.clamp(min=_LOG_SMALLEST))
        total = clamped.sum() if counted is None else torch.where(counted, clamped, 0).sum()
        loss = -total / normalizer(self.normalization, labels, counted, self.axis)
        return (loss, log_probability.exp()) if self.num_tops > 1 else loss


def normalizer(
    mode: caffe_pb2.LossParameter.NormalizationMode,
    positions: Tensor,
    counted: Tensor | None,
    axis: int,
) -> Tensor | int:
    """Return what the sum of a loss over positions is divided by, at least 1.

    Args:
        mode: Normalisation.
        positions: One element for each position.
        counted: Which positions count; None for all.
        axis: The axes before it make the batch.

    Source: SoftmaxWithLossLayer::get_normalizer.
    """
    modes = caffe_pb2.LossParameter
    if mode == modes.VALID and counted is not None:
        return counted.sum().clamp(min=1)
    if mode in (modes.VALID, modes.FULL):
        return max(1, positions.numel())
    return max(1, positions.shape[:axis].numel()) if mode == modes.BATCH_SIZE else 1


def normalization_mode(
    loss: caffe_pb2.LossParameter, default: caffe_pb2.LossParameter.NormalizationMode
) -> caffe_pb2.LossParameter.NormalizationMode:
    """Return the normalisation, also from the legacy `normalize` flag.

    Source: SoftmaxWithLossLayer::LayerSetUp.
    """
    if loss.HasField("normalization"):
        return loss.normalization
    if loss.HasField("normalize"):
        modes = caffe_pb2.LossParameter
        return modes.VALID if loss.normalize else modes.BATCH_SIZE
    return default
