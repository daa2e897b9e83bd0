"""Pooling by chance (Zeiler and Fergus 2013), for values that are not negative."""

from __future__ import annotations

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import LayerContext
from prototxt_parser.layers.pooling_windows import PoolingWindows
from prototxt_parser.proto import caffe_pb2


def refuse_padding(windows: PoolingWindows) -> None:
    """Raise LayerError if the windows are padded."""
    if any(windows.pad):
        raise LayerError(
            f"Padding implemented only for average and max pooling; received pad {windows.pad}"
        )


def stochastic(windows: PoolingWindows, x: Tensor, context: LayerContext) -> Tensor:
    """Return of each window one value drawn in proportion to the values, or their expectation.

    TRAIN: r is drawn from U(0, 1), and the first pixel, row by row, whose running sum reaches r
    times the sum gives the value and gets the gradient. Where negative values keep all of them
    below it is 0; Caffe leaves garbage there. TEST: Σx² / Σx, 0 unless Σx > 0.

    Source: caffe/src/caffe/layers/pooling_layer.cu, StoPoolForwardTrain, StoPoolForwardTest.
    """
    pixels = windows.pixels(x)
    if context.phase == caffe_pb2.TRAIN:
        return _drawn(pixels, context.random.generator(x.device))
    total = pixels.sum(-1)
    is_positive = total > 0
    return pixels.square().sum(-1) / torch.where(is_positive, total, 1) * is_positive


def _drawn(pixels: Tensor, generator: torch.Generator) -> Tensor:
    running = pixels.detach().cumsum(-1)
    total = running[..., -1:]
    # Drawn in double, so that nets of either type pick the same pixels.
    chance = torch.empty(total.shape, dtype=torch.float64, device=total.device)
    chance.uniform_(generator=generator)
    has_reached = running >= chance.to(total) * total
    before = (has_reached.cumsum(-1) == 0).sum(-1, keepdim=True)
    picked = pixels.gather(-1, before.clamp(max=pixels.shape[-1] - 1))
    return torch.where(has_reached.any(-1), picked.squeeze(-1), 0)
