"""Elementary functions of one bottom: absolute value, powers, exponentials, logarithms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.activations import Elementwise
from prototxt_parser.layers.base import LayerContext
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape

_EULER = -1  # the `base` that stands for e


@final
@register_layer("AbsVal")
class AbsVal(Elementwise):
    """|x|; the gradient at 0 is 0.

    Shape: any -> the same.
    Like PyTorch: `abs`.
    Source: caffe/src/caffe/layers/absval_layer.cpp, AbsValLayer.
    """

    allows_in_place = False

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        return bottoms[0].abs()


@final
@register_layer("Power")
class Power(Elementwise):
    """(shift + scale · x) ^ power; a constant without gradient if power or scale is 0.

    Shape: any -> the same.
    Differs from Caffe, whose gradient divides by the base: NaN where that is 0, here the limit
    (power 3: 0; power 0.5: infinity). And in place, Caffe's gradient is wrong for any power; here
    it is the right one.
    Like PyTorch: `pow`.
    Source: caffe/src/caffe/layers/power_layer.cpp, PowerLayer.
    """

    param_fields = ("power_param",)

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        settings = self.param.power_param
        if settings.power * settings.scale == 0:
            return torch.full_like(bottoms[0], settings.shift).pow(settings.power)
        base = _affine(bottoms[0], settings)
        return base if settings.power == 1 else base.pow(settings.power)


@final
@register_layer("Exp")
class Exp(Elementwise):
    """base ^ (shift + scale · x); base -1 means e.

    Shape: any -> the same.
    Like PyTorch: `exp`.
    Source: caffe/src/caffe/layers/exp_layer.cpp, ExpLayer.
    """

    param_fields = ("exp_param",)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Check the base."""
        super().__init__(param, bottoms, context)
        self.log_base = _log_base(param.exp_param)

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        exponent = _affine(bottoms[0], self.param.exp_param)
        return torch.exp(exponent if self.log_base == 1 else exponent * self.log_base)


@final
@register_layer("Log")
class Log(Elementwise):
    """log_base(shift + scale · x); base -1 means e.

    Shape: any -> the same.
    Differs from Caffe: in place, Caffe's gradient is taken at the top instead of the bottom; here
    it is the right one.
    Like PyTorch: `log`.
    Source: caffe/src/caffe/layers/log_layer.cpp, LogLayer.
    """

    param_fields = ("log_param",)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Check the base."""
        super().__init__(param, bottoms, context)
        self.log_base = _log_base(param.log_param)
        if self.log_base == 0:
            raise LayerError("Inf result: 1/log(base); base must not be 1")

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Compute the top."""
        value = torch.log(_affine(bottoms[0], self.param.log_param))
        return value if self.log_base == 1 else value / self.log_base


def _log_base(settings: caffe_pb2.ExpParameter | caffe_pb2.LogParameter) -> float:
    if settings.base == _EULER:
        return 1.0
    if not 0 < settings.base < math.inf:
        raise LayerError(f"base must be strictly positive, or -1 for e; received {settings.base}")
    return math.log(settings.base)


def _affine(
    x: Tensor, settings: caffe_pb2.PowerParameter | caffe_pb2.ExpParameter | caffe_pb2.LogParameter
) -> Tensor:
    """Return shift + scale · x."""
    scaled = x if settings.scale == 1 else x * settings.scale
    return scaled if settings.shift == 0 else scaled + settings.shift
