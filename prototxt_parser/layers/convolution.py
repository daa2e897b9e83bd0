"""Convolution over any number of spatial axes that PyTorch has a kernel for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext, at_least
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, canonical_axis, convolution_size, count, shape_text

_MAX_SPATIAL_AXES = 3


@final
@register_layer("Convolution")
class Convolution(Layer):
    """Cross-correlation with zero padding, groups and dilation.

    Shape: (…, C, s_1, …, s_n) -> (…, num_output, s'_1, …, s'_n), the axes before `axis` are batch,
      s' = floor((s + 2·pad - (dilation·(kernel - 1) + 1)) / stride) + 1.
    Blobs: weight (num_output, C / group, k_1, …, k_n); bias (num_output).
    Several bottoms of one shape share the weights, one top each. `engine` and
    `force_nd_im2col` change no number in Caffe and are ignored.
    Differs from PyTorch: n may be 0 (a linear map over `axis`); more than 3 spatial axes, which
    Caffe allows, are refused.
    Source: caffe/src/caffe/layers/base_conv_layer.cpp, conv_layer.cpp.
    """

    bottom_count = at_least(1)
    top_count = at_least(1)
    tops_match_bottoms = True
    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Check the geometry and add the blobs."""
        super().__init__(param, bottoms, context)
        conv = param.convolution_param
        self.axis = canonical_axis(conv.axis, bottoms[0])
        self.spatial = len(bottoms[0]) - self.axis - 1
        if self.spatial > _MAX_SPATIAL_AXES:
            raise LayerError(
                f"{self.spatial} spatial axes are not supported (at most {_MAX_SPATIAL_AXES}); "
                f"bottom shape {shape_text(bottoms[0])}"
            )
        self.kernel = kernel_sizes(conv, self.spatial)
        self.stride = per_axis(conv, "stride", self.spatial, 1)
        self.pad = per_axis(conv, "pad", self.spatial, 0)
        self.dilation = per_axis(conv, "dilation", self.spatial, 1)
        if 0 in self.stride:
            raise LayerError(f"Stride dimensions must be nonzero. Received {self.stride}")
        self.channels, self.group = bottoms[0][self.axis], conv.group
        self._check_channels(conv)
        shape = (conv.num_output, self.channels // self.group, *self.kernel)
        self.add_blob("weight", shape, conv.weight_filler)
        if conv.bias_term:
            self.add_blob("bias", (conv.num_output,), conv.bias_filler)

    def _check_channels(self, conv: caffe_pb2.ConvolutionParameter) -> None:
        if conv.num_output == 0:
            raise LayerError("num_output must be > 0; received 0")
        if self.group == 0 or self.channels % self.group or conv.num_output % self.group:
            raise LayerError(
                "Number of output should be multiples of group., and so the channels: "
                f"num_output {conv.num_output}, channels {self.channels}, group {self.group}"
            )

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return one shape per bottom."""
        if any(shape != bottoms[0] for shape in bottoms):
            raise LayerError(f"All inputs must have the same shape; received {list(bottoms)}")
        shape = bottoms[0]
        if shape[self.axis] != self.channels:
            raise LayerError(
                "Input size incompatible with convolution kernel: "
                f"expected {self.channels} channels; received {shape[self.axis]}"
            )
        sizes = tuple(
            convolution_size(*sizes)
            for sizes in zip(
                shape[self.axis + 1 :],
                self.kernel,
                self.stride,
                self.pad,
                self.dilation,
                strict=True,
            )
        )
        if min(sizes, default=1) < 1:
            raise LayerError(
                f"the kernel {self.kernel} does not fit into the bottom {shape_text(shape)}"
            )
        return [(*shape[: self.axis], self.weight.shape[0], *sizes)] * len(bottoms)

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Convolve every bottom."""
        tops = tuple(self._convolve(bottom) for bottom in bottoms)
        return tops[0] if len(tops) == 1 else tops

    def _convolve(self, x: Tensor) -> Tensor:
        top_shape = self.top_shapes([tuple(x.shape)])[0]
        batch = (
            x if self.axis == 1 else x.reshape(count(x.shape, 0, self.axis), *x.shape[self.axis :])
        )
        bias = self.bias if len(self.blobs) > 1 else None
        match self.spatial:
            case 2:
                y = functional.conv2d(
                    batch, self.weight, bias, self.stride, self.pad, self.dilation, self.group
                )
            case 3:
                y = functional.conv3d(
                    batch, self.weight, bias, self.stride, self.pad, self.dilation, self.group
                )
            case 1:
                y = functional.conv1d(
                    batch, self.weight, bias, self.stride, self.pad, self.dilation, self.group
                )
            case _:  # no spatial axis: a 1-wide convolution is the grouped linear map
                y = functional.conv1d(
                    batch.unsqueeze(-1), self.weight.unsqueeze(-1), bias, groups=self.group
                )
        return y if y.shape == torch.Size(top_shape) else y.reshape(top_shape)


def kernel_sizes(conv: caffe_pb2.ConvolutionParameter, spatial: int) -> tuple[int, ...]:
    """Return the kernel size of every spatial axis.

    Raises:
        LayerError: None given, both forms given, a wrong number of them, or a zero.
    """
    sizes = per_axis(conv, "kernel_size", spatial, None)
    if 0 in sizes:
        raise LayerError(f"Filter dimensions must be nonzero. Received {sizes}")
    return sizes


def per_axis(
    conv: caffe_pb2.ConvolutionParameter, name: str, spatial: int, default: int | None
) -> tuple[int, ...]:
    """Return a setting given once, once per spatial axis, or as `_h` and `_w`.

    Raises:
        LayerError: Both forms at once, `_h/_w` on other than two axes, or a wrong count.
    """
    values = tuple(getattr(conv, name))
    stem = name.removesuffix("_size")
    height, width = f"{stem}_h", f"{stem}_w"
    if stem != "dilation" and (conv.HasField(height) or conv.HasField(width)):
        if values:
            raise LayerError(f"Either {name} or {stem}_h/w should be specified; not both.")
        if spatial != 2:
            raise LayerError(f"{stem}_h & {stem}_w can only be used for 2D convolution.")
        return (getattr(conv, height), getattr(conv, width))
    if not values and default is not None:
        return (default,) * spatial
    if len(values) not in (1, spatial) or (not values and spatial):
        raise LayerError(
            f"{name} must be specified once, or once per spatial dimension "
            f"({spatial} spatial dims); received {len(values)} values"
        )
    return values * spatial if len(values) == 1 else values
