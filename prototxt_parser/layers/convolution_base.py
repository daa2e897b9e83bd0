"""What Convolution and Deconvolution share: checks, groups, blobs, batch axes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext, at_least
from prototxt_parser.layers.convolution_geometry import read_geometry
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, count


class SharedWindows(Layer):
    """One kernel for the windows of every bottom, in groups of channels, then a bias per output.

    Source: caffe/src/caffe/layers/base_conv_layer.cpp, BaseConvolutionLayer.
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
        self.geometry = read_geometry(conv, bottoms[0])
        self.channels, self.group = bottoms[0][self.geometry.axis], conv.group
        self.num_output = conv.num_output
        if self.num_output == 0:
            raise LayerError("num_output must be > 0; received 0")
        if self.group == 0 or self.channels % self.group or self.num_output % self.group:
            raise LayerError(
                "Number of output should be multiples of group., and so the channels: "
                f"num_output {self.num_output}, channels {self.channels}, group {self.group}"
            )
        self.add_blob("weight", self._weight_shape(), conv.weight_filler)
        if conv.bias_term:
            self.add_blob("bias", (self.num_output,), conv.bias_filler)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return one shape per bottom."""
        shape, axis = bottoms[0], self.geometry.axis
        if any(other != shape for other in bottoms):
            raise LayerError(f"All inputs must have the same shape; received {list(bottoms)}")
        if len(shape) != axis + 1 + self.geometry.spatial or shape[axis] != self.channels:
            raise LayerError(
                "Input size incompatible with convolution kernel: expected "
                f"{self.channels} channels on axis {axis}, then {self.geometry.spatial} spatial "
                f"axes; received {shape}"
            )
        return [(*shape[:axis], self.num_output, *self._sizes(shape))] * len(bottoms)

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute one top per bottom."""
        tops = tuple(self._top(bottom) for bottom in bottoms)
        return tops[0] if len(tops) == 1 else tops

    def _top(self, x: Tensor) -> Tensor:
        shape, axis = self.top_shapes([tuple(x.shape)])[0], self.geometry.axis
        batch = x if axis == 1 else x.reshape(count(x.shape, 0, axis), *x.shape[axis:])
        y = self._apply_kernel(batch, shape[axis + 1 :])
        return y if y.shape == shape else y.reshape(shape)

    def _add_bias(self, y: Tensor) -> Tensor:
        """Add the bias, if there is one, to (B, num_output, …)."""
        if len(self.blobs) == 1:
            return y
        return y + self.bias.reshape(-1, *[1] * self.geometry.spatial)

    @abstractmethod
    def _weight_shape(self) -> Shape:
        """Return the shape of the blob `weight`."""

    @abstractmethod
    def _sizes(self, bottom: Shape) -> Shape:
        """Return the spatial sizes of the top."""

    @abstractmethod
    def _apply_kernel(self, x: Tensor, sizes: Shape) -> Tensor:
        """Compute the top of (B, C, …), whose spatial sizes are `sizes`."""
