"""The softmax loss that weighs every class against every label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from prototxt_parser.blobs import blob_to_tensor
from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Arity, LayerContext
from prototxt_parser.layers.label_losses import LEAST_PROBABILITY
from prototxt_parser.layers.labels import check_labels, class_labels
from prototxt_parser.layers.losses import Loss
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.layers.softmax import normalizer
from prototxt_parser.layers.straight_through import straight_through
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, canonical_axis, count, shape_text


@final
@register_layer("InfogainLoss")
class InfogainLoss(Loss):
    """-(1/Z) · Σ_positions Σ_k H[label, k] · log(max(p_k, 1e-20)), p the softmax along `axis`.

    H is the third bottom, or else the BlobProto in the binary file `source`, relative to the
    working directory. Z by `normalization` and `ignore_label` as for SoftmaxWithLoss. The gradient
    does not see the 1e-20.

    Shape: scores (N, K, …), labels (any shape with N · … values), H (K² values) -> (); a second
      top gets the probabilities.
    Differs from Caffe: without `loss_weight`, two tops have the weights 1 and 0; Caffe wants them
    written. H gets no gradient, where Caffe ends the process.
    Raises LayerError for a label that is no class; Caffe's behaviour is undefined there.
    Differs from PyTorch: CrossEntropyLoss takes a weight for each class, not for each pair of
    classes, and has no lower limit for p.
    Source: caffe/src/caffe/layers/infogain_loss_layer.cpp, InfogainLossLayer.
    """

    param_fields = ("infogain_loss_param", "loss_param")
    bottom_count = Arity(2, 3)
    top_count = Arity(1, 2)
    matrix: Tensor

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Find the axis and read H."""
        super().__init__(param, bottoms, context)
        if param.loss_param.HasField("normalize"):
            raise LayerError('normalize is deprecated. use "normalization"')
        self.axis = canonical_axis(param.infogain_loss_param.axis, bottoms[0])
        if len(bottoms) < 3:
            matrix = _read_matrix(param.infogain_loss_param)
            # A buffer, to move with the net; not saved, because the definition names its file.
            self.register_buffer("matrix", matrix.to(context.dtype), persistent=False)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return a scalar, and the scores' shape for a second top."""
        super().top_shapes(bottoms)
        check_labels(bottoms[0], bottoms[1], self.axis)
        classes = bottoms[0][self.axis]
        matrix = bottoms[2] if len(bottoms) == 3 else tuple(self.matrix.shape)
        if count(matrix) != classes**2:
            raise LayerError(
                f"the infogain matrix must have {classes} x {classes} values, as there are "
                f"{classes} classes; received {shape_text(matrix)}"
            )
        return [(), bottoms[0]][: self.num_tops]

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute the loss."""
        scores = bottoms[0]
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        labels, counted = class_labels(bottoms[1], scores, self.axis, self.param.loss_param)
        log_probability = torch.log_softmax(scores, dim=self.axis)
        least = math.log(LEAST_PROBABILITY)
        clamped = straight_through(log_probability, log_probability.clamp(min=least))
        classes = scores.shape[self.axis]
        matrix = (bottoms[2].detach() if len(bottoms) == 3 else self.matrix).reshape(classes, -1)
        rows = matrix[labels.squeeze(self.axis)].movedim(-1, self.axis)
        gain = rows * clamped
        total = gain.sum() if counted is None else torch.where(counted, gain, 0).sum()
        mode = self.param.loss_param.normalization
        loss = -total / normalizer(mode, labels, counted, self.axis)
        return (loss, log_probability.exp()) if self.num_tops > 1 else loss


def _read_matrix(settings: caffe_pb2.InfogainLossParameter) -> Tensor:
    if not settings.HasField("source"):
        raise LayerError(
            "Infogain matrix source must be specified: give infogain_loss_param { source }, or the "
            "matrix as a third bottom"
        )
    try:
        blob = caffe_pb2.BlobProto.FromString(Path(settings.source).read_bytes())
        return blob_to_tensor(blob)
    except (OSError, DecodeError, LayerError) as error:
        raise LayerError(
            f"{settings.source}: expected a binary BlobProto with the infogain matrix: {error}"
        ) from error
