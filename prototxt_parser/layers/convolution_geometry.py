"""Where convolution windows lie: the settings that Convolution, Deconvolution and Im2col share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from prototxt_parser.errors import LayerError
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, canonical_axis, convolution_size, shape_text


@dataclass(frozen=True)
class Geometry:
    """Windows over the axes after `axis`, one value per spatial axis.

    Attributes:
        axis: The channel axis; the axes before it are batch.
        kernel: Values per window.
        stride: Step between windows.
        pad: Zeros on both sides.
        dilation: Distance between the values of a window.
    """

    axis: int
    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape

    @property
    def spatial(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def extent(self) -> Shape:
        """What a window spans: dilation · (kernel - 1) + 1."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))

    def windows(self, bottom: Shape) -> Shape:
        """Return how many windows there are along each spatial axis.

        Raises:
            LayerError: None fits.

        Source: caffe/src/caffe/layers/conv_layer.cpp, compute_output_shape.
        """
        settings = zip(
            bottom[self.axis + 1 :], self.kernel, self.stride, self.pad, self.dilation, strict=True
        )
        sizes = tuple(convolution_size(*values) for values in settings)
        if min(sizes, default=1) < 1:
            raise LayerError(
                f"the kernel {self.kernel} does not fit into the bottom {shape_text(bottom)}"
            )
        return sizes

    def spread(self, bottom: Shape) -> Shape:
        """Return the sizes of which `bottom` holds the windows: stride·(s - 1) + extent - 2·pad.

        Raises:
            LayerError: The padding leaves nothing.

        Source: caffe/src/caffe/layers/deconv_layer.cpp, compute_output_shape.
        """
        settings = zip(bottom[self.axis + 1 :], self.stride, self.extent, self.pad, strict=True)
        sizes = tuple(step * (size - 1) + span - 2 * pad for size, step, span, pad in settings)
        if min(sizes, default=1) < 1:
            raise LayerError(
                f"pad {self.pad} leaves nothing of the top of bottom {shape_text(bottom)}"
            )
        return sizes


def patches(x: Tensor, geometry: Geometry) -> Tensor:
    """Return all windows of (B, C, s_1, …, s_n) as (B, C, k_1, …, k_n, s'_1, …, s'_n).

    Unlike PyTorch's `unfold` it takes any n, and windows larger than the padded bottom, of which
    Caffe makes one where stride > 1: what lies outside is 0.
    """
    n, sizes = geometry.spatial, geometry.windows((0,) * geometry.axis + tuple(x.shape[1:]))
    frame: list[int] = []
    for i in reversed(range(n)):
        reach = (sizes[i] - 1) * geometry.stride[i] + geometry.extent[i]
        frame += [geometry.pad[i], reach - x.shape[2 + i] - geometry.pad[i]]
    y = functional.pad(x, frame)
    for i in range(n):
        y = y.unfold(2 + i, geometry.extent[i], geometry.stride[i])[..., :: geometry.dilation[i]]
    return y.permute(0, 1, *range(2 + n, 2 + 2 * n), *range(2, 2 + n))


def read_geometry(conv: caffe_pb2.ConvolutionParameter, bottom: Shape) -> Geometry:
    """Return the windows that `convolution_param` describes for this bottom.

    Raises:
        LayerError: A setting is missing, zero, given in two forms, or a wrong number of times.

    Source: caffe/src/caffe/layers/base_conv_layer.cpp, LayerSetUp.
    """
    axis = canonical_axis(conv.axis, bottom)
    spatial = len(bottom) - axis - 1
    geometry = Geometry(
        axis,
        _per_axis(conv, "kernel_size", spatial, None),
        _per_axis(conv, "stride", spatial, 1),
        _per_axis(conv, "pad", spatial, 0),
        _per_axis(conv, "dilation", spatial, 1),
    )
    for name, values in (
        ("Filter", geometry.kernel),
        ("Stride", geometry.stride),
        ("Dilation", geometry.dilation),
    ):
        if 0 in values:
            raise LayerError(f"{name} dimensions must be nonzero. Received {values}")
    return geometry


def _per_axis(
    conv: caffe_pb2.ConvolutionParameter, name: str, spatial: int, default: int | None
) -> Shape:
    """Return a setting given once, once per spatial axis, or as `_h` and `_w`."""
    values: Sequence[int] = getattr(conv, name)
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
    return tuple(values) * spatial if len(values) == 1 else tuple(values)
