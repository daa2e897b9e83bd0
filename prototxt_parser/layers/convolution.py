"""Convolution over any number of spatial axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from torch import Tensor
from torch.nn import functional

from prototxt_parser.layers.convolution_base import SharedWindows
from prototxt_parser.layers.convolution_geometry import patches
from prototxt_parser.layers.ignored import ENGINE, ignored
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.shapes import Shape, count

_KERNELS: dict[int, Callable[..., Tensor]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}


@final
@register_layer("Convolution")
class Convolution(SharedWindows):
    """Cross-correlation with zero padding, groups and dilation.

    Shape: (…, C, s_1, …, s_n) -> (…, num_output, s'_1, …, s'_n), the axes before `axis` are batch,
      s' = floor((s + 2·pad - (dilation·(kernel - 1) + 1)) / stride) + 1.
    Blobs: weight (num_output, C / group, k_1, …, k_n); bias (num_output).

    Several bottoms of one shape share the weights, one top each.

    Differs from PyTorch: n may be 0 (a linear map over `axis`) or above 3; the division rounds
    towards zero, so with stride > 1 a kernel slightly too large still gives one value.
    Source: caffe/src/caffe/layers/base_conv_layer.cpp, conv_layer.cpp.
    """

    param_fields = ("convolution_param",)
    ignored_fields = ignored("convolution_param", engine=ENGINE, force_nd_im2col=ENGINE)

    def _weight_shape(self) -> Shape:
        return (self.num_output, self.channels // self.group, *self.geometry.kernel)

    def _sizes(self, bottom: Shape) -> Shape:
        return self.geometry.windows(bottom)

    def _apply_kernel(self, x: Tensor, sizes: Shape) -> Tensor:
        g = self.geometry
        fits = all(
            size + 2 * pad >= span
            for size, pad, span in zip(x.shape[2:], g.pad, g.extent, strict=True)
        )
        if g.spatial in _KERNELS and fits:
            bias = self.bias if len(self.blobs) > 1 else None
            convolve = _KERNELS[g.spatial]
            return convolve(x, self.weight, bias, g.stride, g.pad, g.dilation, self.group)
        weight = self.weight.reshape(self.group, self.num_output // self.group, -1)
        columns = patches(x, g).reshape(len(x), self.group, weight.shape[2], count(sizes))
        y = weight @ columns
        return self._add_bias(y.reshape(len(x), self.num_output, *sizes))
