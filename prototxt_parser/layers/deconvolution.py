"""Deconvolution over any number of spatial axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from prototxt_parser.layers.convolution_base import SharedWindows
from prototxt_parser.layers.convolution_geometry import patches
from prototxt_parser.layers.ignored import ENGINE, ignored
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.shapes import Shape, count

_KERNELS: dict[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


@final
@register_layer("Deconvolution")
class Deconvolution(SharedWindows):
    """Transposed convolution: the adjoint of the Convolution with this weight, plus the bias.

    Shape: (…, C, s_1, …, s_n) -> (…, num_output, s'_1, …, s'_n), the axes before `axis` are batch,
      s' = stride·(s - 1) + dilation·(kernel - 1) + 1 - 2·pad.
    Blobs: weight (C, num_output / group, k_1, …, k_n), input channels first as in PyTorch, so
    fillers take fan in from num_output; bias (num_output).

    Several bottoms of one shape share the weights, one top each.

    Differs from PyTorch: n may be 0 or above 3; no output padding.
    Source: caffe/src/caffe/layers/base_conv_layer.cpp, deconv_layer.cpp.
    """

    param_fields = ("convolution_param",)
    ignored_fields = ignored("convolution_param", engine=ENGINE, force_nd_im2col=ENGINE)

    def _weight_shape(self) -> Shape:
        return (self.channels, self.num_output // self.group, *self.geometry.kernel)

    def _sizes(self, bottom: Shape) -> Shape:
        return self.geometry.spread(bottom)

    def _apply_kernel(self, x: Tensor, sizes: Shape) -> Tensor:
        g = self.geometry
        if g.spatial in _KERNELS:
            bias = self.bias if len(self.blobs) > 1 else None
            deconvolve = _KERNELS[g.spatial]
            return deconvolve(x, self.weight, bias, g.stride, g.pad, 0, self.group, g.dilation)
        weight = self.weight.reshape(self.group, self.channels // self.group, -1)
        columns = weight.mT @ x.reshape(len(x), *weight.shape[:2], count(x.shape, 2))
        image = x.new_zeros(len(x), self.num_output, *sizes)
        scatter = torch.func.vjp(lambda y: patches(y, g), image)[1]
        shape = (len(x), self.num_output, *g.kernel, *x.shape[2:])
        return self._add_bias(scatter(columns.reshape(shape))[0])
