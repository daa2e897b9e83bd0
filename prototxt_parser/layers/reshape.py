"""The same values in another shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.shapes import Shape, canonical_axis, count, shape_text


@final
@register_layer("Flatten")
class Flatten(Layer):
    """The axes `axis` (1) to `end_axis` (-1), both included, as one.

    Shape: (…, A, …, B, …) -> (…, A · … · B, …).
    Like PyTorch: `flatten`, from axis 1 on by default.
    Source: caffe/src/caffe/layers/flatten_layer.cpp, FlattenLayer.
    """

    param_fields = ("flatten_param",)
    allows_in_place = False
    shares_memory = True

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the flattened shape."""
        shape, flatten = bottoms[0], self.param.flatten_param
        start = canonical_axis(flatten.axis, shape)
        end = canonical_axis(flatten.end_axis, shape) + 1
        if start > end:
            raise LayerError(
                f"end_axis must not come before axis; received axis {flatten.axis}, end_axis "
                f"{flatten.end_axis} for {shape_text(shape)}"
            )
        return [(*shape[:start], count(shape, start, end), *shape[end:])]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Flatten."""
        return bottoms[0].reshape(self.top_shapes([tuple(bottoms[0].shape)])[0])


@final
@register_layer("Reshape")
class Reshape(Layer):
    """`num_axes` (-1: all) axes from `axis` (0) on replaced by `shape`.

    In `shape`, 0 copies the bottom's dim at its place counted from `axis`, and one -1 stands for
    whatever is left. A negative `axis` counts from behind the last one: -1 appends.

    Shape: any -> as many values.
    Differs from PyTorch: `reshape` has no 0 that copies a dim, and always replaces all axes.
    Source: caffe/src/caffe/layers/reshape_layer.cpp, ReshapeLayer.
    """

    param_fields = ("reshape_param",)
    allows_in_place = False
    shares_memory = True

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the new shape."""
        shape = bottoms[0]
        start, end = self._replaced(shape)
        dims = list(self.param.reshape_param.shape.dim)
        if dims.count(-1) > 1 or min(dims, default=0) < -1:
            raise LayerError(f"new shape may contain one -1 and nothing below; received {dims}")
        for i, dim in enumerate(dims):
            if dim == 0:
                dims[i] = self._copied(shape, start + i)
        if -1 in dims:
            known = -count((*shape[:start], *dims, *shape[end:]))
            if known == 0 or count(shape) % known:
                raise LayerError(
                    f"bottom count ({count(shape)}) must be divisible by the product of the "
                    f"specified dimensions ({known})"
                )
            dims[dims.index(-1)] = count(shape) // known
        top = (*shape[:start], *dims, *shape[end:])
        if count(top) != count(shape):
            raise LayerError(
                f"output count must match input count; {shape_text(shape)} cannot become "
                f"{shape_text(top)}"
            )
        return [top]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Reshape."""
        return bottoms[0].reshape(self.top_shapes([tuple(bottoms[0].shape)])[0])

    def _replaced(self, shape: Shape) -> tuple[int, int]:
        settings, axes = self.param.reshape_param, len(shape)
        start = settings.axis if settings.axis >= 0 else axes + settings.axis + 1
        end = axes if settings.num_axes == -1 else start + settings.num_axes
        if not 0 <= start <= end <= axes:
            raise LayerError(
                f"axis {settings.axis} with num_axes {settings.num_axes} is out of range for "
                f"{shape_text(shape)}"
            )
        return start, end

    def _copied(self, shape: Shape, axis: int) -> int:
        if axis >= len(shape):
            raise LayerError(
                "new shape contains a 0, but there was no corresponding bottom axis to copy: "
                f"axis {axis} of {shape_text(shape)}"
            )
        return shape[axis]
