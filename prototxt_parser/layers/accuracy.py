"""The share of right predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Arity, Layer, LayerContext, exactly
from prototxt_parser.layers.labels import check_labels, class_labels
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, canonical_axis


@final
@register_layer("Accuracy")
class Accuracy(Layer):
    """Share of positions whose label is among the `top_k` highest scores.

    A position is right if fewer than `top_k` other classes score at least as high: ties count
    against it. A NaN score of the true class counts as right, since no comparison holds. 0 if
    nothing counts.

    Shape: scores (N, K, …) and labels -> (); a second top (K) has the share per class, 0 for
      classes that do not occur.
    Differs from Caffe 1.0 (as Caffe's last commit does): there ties went to the higher class.
    Differs from PyTorch: `topk` leaves open which of equal scores it takes.
    Source: caffe/src/caffe/layers/accuracy_layer.cpp, AccuracyLayer.
    """

    param_fields = ("accuracy_param",)
    bottom_count = exactly(2)
    top_count = Arity(1, 2)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Find the axis."""
        super().__init__(param, bottoms, context)
        self.axis = canonical_axis(param.accuracy_param.axis, bottoms[0])
        if param.accuracy_param.top_k > bottoms[0][self.axis]:
            raise LayerError(
                "top_k must be less than or equal to the number of classes. "
                f"Received {param.accuracy_param.top_k} of {bottoms[0][self.axis]}"
            )

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return a scalar, and the number of classes for a second top."""
        check_labels(bottoms[0], bottoms[1], self.axis)
        return [(), (bottoms[0][self.axis],)][: self.num_tops]

    @torch.no_grad()
    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Count."""
        scores, accuracy = bottoms[0], self.param.accuracy_param
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        labels, counted = class_labels(bottoms[1], scores, self.axis, accuracy)
        true_score = scores.gather(self.axis, labels)
        # The true class itself compares as equal, unless it is NaN.
        as_high = (scores >= true_score).sum(dim=self.axis, keepdim=True)
        right = as_high <= accuracy.top_k
        counted = torch.ones_like(right) if counted is None else counted
        right = right & counted
        share = _ratio(right.sum(), counted.sum(), scores)
        if self.num_tops == 1:
            return share
        classes = scores.shape[self.axis]
        hits = torch.bincount(labels[right], minlength=classes)
        return share, _ratio(hits, torch.bincount(labels[counted], minlength=classes), scores)


def _ratio(part: Tensor, whole: Tensor, like: Tensor) -> Tensor:
    """Return part / whole in the type of `like`, 0 where whole is 0."""
    return part.to(like) / whole.clamp(min=1).to(like)
