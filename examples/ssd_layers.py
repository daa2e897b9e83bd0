"""Two layers of SSD (Liu et al. 2016), `Permute` and `Normalize`, as layers of one's own.

torrefy train --net ssd.prototxt --layer-module examples/ssd_layers.py
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from prototxt_parser import (
    FillerParameter,
    Layer,
    LayerContext,
    LayerError,
    LayerParameter,
    Shape,
    add_layer_fields,
    layer_field,
    register_layer,
)

add_layer_fields(
    """
    message PermuteParameter {
      repeated uint32 order = 1;
    }
    message NormalizeParameter {
      optional bool across_spatial = 1 [default = true];
      optional FillerParameter scale_filler = 2;
      optional bool channel_shared = 3 [default = true];
      optional float eps = 4 [default = 1e-10];
    }
    extend LayerParameter {
      optional PermuteParameter permute_param = 202;
      optional NormalizeParameter norm_param = 206;
    }
    """
)


@register_layer("Permute")
class Permute(Layer):
    """Reorders the axes: top axis i is bottom axis `order[i]`, then those that `order` leaves out.

    Shape: any -> its sizes in the new order.
    Source: SSD's fork of Caffe, src/caffe/layers/permute_layer.cpp, PermuteLayer.
    """

    param_fields = ("permute_param",)

    def __init__(
        self, param: LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Check the order."""
        super().__init__(param, bottoms, context)
        given = list(layer_field(param, "permute_param").order)
        axes = range(len(bottoms[0]))
        if len(set(given)) < len(given) or not set(given) <= set(axes):
            raise LayerError(
                f"order must be distinct axes below {len(axes)}, the bottom's; received {given}"
            )
        self.order = [*given, *(axis for axis in axes if axis not in given)]

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the sizes in the new order."""
        return [tuple(bottoms[0][axis] for axis in self.order)]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Reorder."""
        return bottoms[0].permute(self.order).contiguous()


@register_layer("Normalize")
class Normalize(Layer):
    """Divides by the L2 norm and multiplies by a learned scale: y = x / sqrt(Σx² + eps) · scale.

    The sum is over each item (`across_spatial`), or over the channels at each place.

    Shape: (N, C, ...) -> the same.
    Blobs: scale, () if `channel_shared`, else (C); `scale_filler`, by default 1.
    Source: SSD's fork of Caffe, src/caffe/layers/normalize_layer.cpp, NormalizeLayer.
    """

    param_fields = ("norm_param",)
    scale: nn.Parameter

    def __init__(
        self, param: LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Add the scale."""
        super().__init__(param, bottoms, context)
        self.norm = layer_field(param, "norm_param")
        if len(bottoms[0]) < 2:
            raise LayerError(f"the bottom must have at least 2 axes; received {bottoms[0]}")
        filler = FillerParameter(value=1)
        if self.norm.HasField("scale_filler"):
            filler = self.norm.scale_filler
        self.add_blob("scale", () if self.norm.channel_shared else (bottoms[0][1],), filler)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the shape of the bottom."""
        return [bottoms[0]]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Normalise and scale."""
        x = bottoms[0]
        axes = list(range(1, x.dim())) if self.norm.across_spatial else [1]
        norm: Tensor = (x.square().sum(axes, keepdim=True) + self.norm.eps).sqrt()
        return x / norm * self.scale.reshape(-1, *[1] * (x.dim() - 2))
