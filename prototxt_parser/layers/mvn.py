"""Mean-variance normalisation of each image, or of each channel of each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.shapes import Shape, shape_text


@final
@register_layer("MVN")
class MVN(Layer):
    """x - mean, divided by (standard deviation + eps) with `normalize_variance`.

    Statistics are those of every (n, c) plane, or of every item with `across_channels`.

    Shape: (N, C, H, W) -> the same; with fewer axes ones are appended: (N, C) -> (N, C, 1, 1).
    Differs from the derivative, as Caffe: the gradient with `normalize_variance` is
    (dy - mean(dy) - y·mean(dy·y)) / (std + eps), exact for eps 0. With the default 1e-9 nobody sees
    the difference; with a large eps a trained net does, so Caffe is followed.
    Differs from PyTorch's instance_norm: eps is added to the deviation, not to the variance.
    In place it is right here; Caffe's gradient is not.
    Source: caffe/src/caffe/layers/mvn_layer.cpp, MVNLayer.
    """

    param_fields = ("mvn_param",)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the bottom's shape with 4 axes."""
        bottom = bottoms[0]
        if len(bottom) > 4:
            raise LayerError(
                "Cannot use legacy accessors on Blobs with > 4 axes; "
                f"received shape {shape_text(bottom)}"
            )
        return [(*bottom, *[1] * (4 - len(bottom)))]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Normalise."""
        mvn = self.param.mvn_param
        x = bottoms[0].reshape(self.top_shapes([tuple(bottoms[0].shape)])[0])
        axes = (1, 2, 3) if mvn.across_channels else (2, 3)
        if not mvn.normalize_variance:
            return x - x.mean(axes, keepdim=True)
        top: Tensor = _Normalize.apply(x, axes, mvn.eps)  # type: ignore[no-untyped-call]
        return top


class _Normalize(torch.autograd.Function):
    """Caffe's gradient: it leaves out how eps weakens the influence of the deviation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
        centered = x - x.mean(axes, keepdim=True)
        scale = centered.square().mean(axes, keepdim=True).sqrt() + eps
        y = centered / scale
        ctx.axes = axes
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *diffs: Tensor) -> tuple[Tensor, None, None]:
        y, scale = ctx.saved_tensors
        dy, axes = diffs[0], ctx.axes
        mean = dy.mean(axes, keepdim=True)
        return (dy - mean - y * (dy * y).mean(axes, keepdim=True)) / scale, None, None
