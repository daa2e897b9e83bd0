"""Parts of a blob: slices along an axis, and crops to the size of another blob."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext, at_least, exactly
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, canonical_axis, shape_text


@final
@register_layer("Slice")
class Slice(Layer):
    """Consecutive slices along `axis` (1), or along the legacy `slice_dim`, one for each top.

    They begin at 0 and at every `slice_point`; without slice points they are of equal size.

    Shape: (…, K, …) -> one (…, k, …) for each top, the k adding up to K and none of them 0.
    Differs from PyTorch: `split` takes sizes and runs along axis 0 by default.
    Source: caffe/src/caffe/layers/slice_layer.cpp, SliceLayer.
    """

    param_fields = ("slice_param",)
    top_count = at_least(1)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Find the axis."""
        super().__init__(param, bottoms, context)
        settings = param.slice_param
        if settings.HasField("axis") and settings.HasField("slice_dim"):
            raise LayerError("Either axis or slice_dim should be specified; not both.")
        axis = settings.slice_dim if settings.HasField("slice_dim") else settings.axis
        self.axis = canonical_axis(axis, bottoms[0])
        if len(settings.slice_point) not in (0, self.num_tops - 1):
            raise LayerError(
                f"{self.num_tops} tops need {self.num_tops - 1} slice_point, or none for equal "
                f"slices; received {len(settings.slice_point)}"
            )

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the shapes of the slices."""
        before, after = bottoms[0][: self.axis], bottoms[0][self.axis + 1 :]
        return [(*before, size, *after) for size in self._sizes(bottoms[0][self.axis])]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Slice."""
        x = bottoms[0]
        return torch.split(x, self._sizes(x.shape[self.axis]), dim=self.axis)

    def _sizes(self, whole: int) -> list[int]:
        points = list(self.param.slice_param.slice_point)
        if not points:
            if whole % self.num_tops:
                raise LayerError(
                    f"Number of top blobs ({self.num_tops}) should evenly divide input slice axis "
                    f"({whole})"
                )
            return [whole // self.num_tops] * self.num_tops
        sizes = [end - start for start, end in zip([0, *points], [*points, whole], strict=True)]
        if min(sizes) <= 0:
            raise LayerError(
                f"slice_point must increase strictly between 0 and {whole}, the size of axis "
                f"{self.axis}; received {points}"
            )
        return sizes


@final
@register_layer("Crop")
class Crop(Layer):
    """The first bottom cut to the size of the second in the axes from `axis` (2) on.

    `offset` says how many values to leave out in front: one number for all these axes, or one for
    each; none is 0, not the middle. The second bottom gives its shape alone and gets no gradient.

    Shape: a and b with as many axes -> a's dims before `axis`, then b's.
    Differs from PyTorch: torchvision's CenterCrop cuts out the middle.
    Source: caffe/src/caffe/layers/crop_layer.cpp, CropLayer.
    """

    param_fields = ("crop_param",)
    bottom_count = exactly(2)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Find the axis and the offsets."""
        super().__init__(param, bottoms, context)
        self.axis = canonical_axis(param.crop_param.axis, bottoms[0])
        cut = len(bottoms[0]) - self.axis
        offsets = list(param.crop_param.offset) or [0]
        if len(offsets) not in (1, cut):
            raise LayerError(
                "number of offset values specified must be equal to the number of dimensions "
                f"following axis: {cut}; received {len(offsets)}"
            )
        self.offsets = offsets * cut if len(offsets) == 1 else offsets

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the cut shape."""
        shape, wanted = bottoms
        if len(wanted) < len(shape):
            raise LayerError(
                f"the second bottom must have {len(shape)} axes like the first; "
                f"received {shape_text(wanted)}"
            )
        top = (*shape[: self.axis], *wanted[self.axis : len(shape)])
        for axis, offset in enumerate(self.offsets, self.axis):
            if offset + top[axis] > shape[axis]:
                raise LayerError(
                    f"the crop for dimension {axis} is out-of-bounds with size {top[axis]} and "
                    f"offset {offset}: the first bottom is {shape_text(shape)}"
                )
        return [top]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Crop."""
        (shape,) = self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        top = bottoms[0]
        for axis, offset in enumerate(self.offsets, self.axis):
            top = top.narrow(axis, offset, shape[axis])
        return top
