"""Batch normalisation, with Caffe's un-normalised running sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.activations import Elementwise
from prototxt_parser.layers.base import LayerContext
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, shape_text

_TEST = caffe_pb2.TEST


@final
@register_layer("BatchNorm")
class BatchNorm(Elementwise):
    """(x - mean) / sqrt(variance + eps) per channel (axis 1), without a learned scale.

    Shape: (N, C, …) -> the same.
    Blobs: running_mean (C), running_var (C), scale_factor (1): sums with decay
    `moving_average_fraction`; the first two are divided by the third when used, and a factor of 0
    gives 0. They take no gradient; every training forward updates them.

    `use_global_stats` unset means: in the TEST phase.

    Differs from PyTorch: the phase decides, not `train()`/`eval()`; the running blobs must be
    divided; `moving_average_fraction` is the share that is kept; no affine part (Scale has it).
    Source: caffe/src/caffe/layers/batch_norm_layer.cpp, BatchNormLayer.
    """

    param_fields = ("batch_norm_param",)
    running_mean: nn.Parameter
    running_var: nn.Parameter
    scale_factor: nn.Parameter

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Add the three statistics."""
        super().__init__(param, bottoms, context)
        if len(bottoms[0]) < 2:
            raise LayerError(
                f"axis 1 out of range for {len(bottoms[0])}-D Blob with shape "
                f"{shape_text(bottoms[0])}"
            )
        if any(spec.lr_mult != 0 for spec in param.param):
            raise LayerError(
                "Cannot configure batch normalization statistics as layer parameters. "
                "Give every param of the layer lr_mult: 0"
            )
        norm = param.batch_norm_param
        self.uses_global_stats = (
            norm.use_global_stats if norm.HasField("use_global_stats") else context.phase == _TEST
        )
        zero = caffe_pb2.FillerParameter()
        self.channels = bottoms[0][1]
        self.add_blob("running_mean", (self.channels,), zero)
        self.add_blob("running_var", (self.channels,), zero)
        self.add_blob("scale_factor", (1,), zero)

    @property
    def statistics(self) -> frozenset[str]:
        """All three blobs."""
        return frozenset(self.blob_names)

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Normalise with the batch's statistics, or with the running ones."""
        x, eps = bottoms[0], self.param.batch_norm_param.eps
        if x.shape[1] != self.channels:
            raise LayerError(f"expected {self.channels} channels; received {x.shape[1]}")
        if self.uses_global_stats:
            factor = self.scale_factor.detach()
            scale = torch.where(factor == 0, factor, 1 / factor)
            mean, variance = self.running_mean.detach() * scale, self.running_var.detach() * scale
            return torch.batch_norm(x, None, None, mean, variance, False, 0.0, eps, False)
        mean, variance = x.new_zeros(self.channels), x.new_zeros(self.channels)
        # With momentum 1 the running values become the batch's mean and unbiased variance.
        y = torch.batch_norm(x, None, None, mean, variance, True, 1.0, eps, False)
        if x.numel() == self.channels:
            variance.zero_()  # one value per channel: Caffe applies no Bessel correction to 0
        self._update(mean, variance)
        return y

    def _update(self, mean: Tensor, variance: Tensor) -> None:
        fraction = self.param.batch_norm_param.moving_average_fraction
        with torch.no_grad():
            self.scale_factor.mul_(fraction).add_(1)
            self.running_mean.mul_(fraction).add_(mean)
            self.running_var.mul_(fraction).add_(variance)
