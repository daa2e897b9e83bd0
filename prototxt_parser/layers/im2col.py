"""The columns that Caffe's convolution multiplies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext
from prototxt_parser.layers.convolution_geometry import patches, read_geometry
from prototxt_parser.layers.ignored import ENGINE, ignored
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, count, shape_text

_ONLY_MOVES = "nothing is learned or computed here, values only move"


@final
@register_layer("Im2col")
class Im2col(Layer):
    """The values under every window of `convolution_param`; 0 outside the image.

    Shape: (…, C, s_1, …, s_n) -> (…, C·k_1·…·k_n, s'_1, …, s'_n), s' as for Convolution. Of the
      second kind of axis the channel is slowest, then the place in the window, row by row.
    Differs from PyTorch's `unfold`: any n ≥ 1, and the places of the windows stay apart as axes.
    Source: caffe/src/caffe/layers/im2col_layer.cpp, Im2colLayer.
    """

    param_fields = ("convolution_param",)
    ignored_fields = ignored(
        "convolution_param",
        engine=ENGINE,
        force_nd_im2col=ENGINE,
        num_output=_ONLY_MOVES,
        bias_term=_ONLY_MOVES,
        group=_ONLY_MOVES,
        weight_filler=_ONLY_MOVES,
        bias_filler=_ONLY_MOVES,
    )

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Check the geometry."""
        super().__init__(param, bottoms, context)
        self.geometry = read_geometry(param.convolution_param, bottoms[0])
        if self.geometry.spatial == 0:
            raise LayerError(
                f"expected a spatial axis after axis {self.geometry.axis}; "
                f"received bottom shape {shape_text(bottoms[0])}"
            )

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the shape of the columns."""
        bottom, axis = bottoms[0], self.geometry.axis
        if len(bottom) != axis + 1 + self.geometry.spatial:
            raise LayerError(
                f"expected {self.geometry.spatial} axes after axis {axis}; received {bottom}"
            )
        channels = bottom[axis] * count(self.geometry.kernel)
        return [(*bottom[:axis], channels, *self.geometry.windows(bottom))]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Gather the windows."""
        x, axis = bottoms[0], self.geometry.axis
        shape = self.top_shapes([tuple(x.shape)])[0]
        batch = x.reshape(count(x.shape, 0, axis), *x.shape[axis:])
        return patches(batch, self.geometry).reshape(shape)
