"""Choosing items (dim 0) of a batch: by index, or by a selector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext, at_least, exactly
from prototxt_parser.layers.indices import integers
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, shape_text


@final
@register_layer("BatchReindex")
class BatchReindex(Layer):
    """y[i] = x[index[i]]; an index may repeat, and its gradients add up.

    Shape: x (N, …) and index (M), floats in [0, N) of which the integer part counts -> (M, …).
    Differs from Caffe: M = 0 always gives an empty top (there only if the blob once was larger),
    and asking for the gradient of the index gives 0 (there it aborts).
    Like PyTorch: `index_select`, but for the type of the indices.
    Source: caffe/src/caffe/layers/batch_reindex_layer.cpp, BatchReindexLayer.
    """

    bottom_count = exactly(2)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return as many items as there are indices."""
        items, index = bottoms
        if len(index) != 1 or not items:
            raise LayerError(
                "expected items with a batch axis and an index blob with 1 axis; received "
                f"shapes {shape_text(items)} and {shape_text(index)}"
            )
        return [(*index, *items[1:])]

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Gather the items."""
        items, index = bottoms
        self.top_shapes([tuple(items.shape), tuple(index.shape)])
        return items.index_select(0, integers(index, len(items), "batch size"))


@final
@register_layer("Filter")
class Filter(Layer):
    """Of every bottom but the last, the items whose selector (the last bottom) is not 0, in order.

    Items left out get gradient 0.

    Shape: n blobs (N, …) and a selector (N, 1, …) -> n blobs (M, …), M the number selected, which
      may be 0; static shapes say N.
    Differs from Caffe: with M = 0 the gradient is 0 (there backward crashes), and asking for the
    gradient of the selector gives 0 (there it aborts).
    Like PyTorch: indexing with a mask.
    Source: caffe/src/caffe/layers/filter_layer.cpp, FilterLayer.
    """

    bottom_count = at_least(2)
    top_count = at_least(1)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Check the number of tops."""
        super().__init__(param, bottoms, context)
        exactly(len(bottoms) - 1).check(param.type, "top", self.num_tops)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the shapes for a selector that takes everything."""
        *items, selector = bottoms
        if not selector or set(selector[1:]) - {1}:
            raise LayerError(
                "Selector blob dimensions must be singletons (1), except the first; "
                f"received {shape_text(selector)}"
            )
        if any(shape[:1] != selector[:1] for shape in items):
            raise LayerError(
                "Each bottom should have the same 0th dimension as the selector blob; "
                f"received {list(bottoms)}"
            )
        return items

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Keep the selected items."""
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        selected = bottoms[-1].detach().reshape(-1).nonzero().squeeze(1)
        tops = tuple(items.index_select(0, selected) for items in bottoms[:-1])
        return tops[0] if len(tops) == 1 else tops
