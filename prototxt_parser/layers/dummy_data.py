"""Blobs filled by the net itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar, final

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.fillers import fill
from prototxt_parser.layers.base import Layer, LayerContext, at_least, exactly
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, check_shape

_Value = TypeVar("_Value")

_OLD_DIMS = ("num", "channels", "height", "width")


@final
@register_layer("DummyData")
class DummyData(Layer):
    """Tops from fillers: one of all tops, one per top, or zeros.

    Shape: nothing -> `shape`, or the old `num`, `channels`, `height`, `width`: each given once for
      all tops, or once per top.

    A constant top is filled once, so that what somebody writes into it persists; others are filled
    anew, from the net's random source, in every forward pass.

    Differs from PyTorch: there is none like it.
    Source: caffe/src/caffe/layers/dummy_data_layer.cpp, DummyDataLayer.
    """

    param_fields = ("dummy_data_param",)
    bottom_count = exactly(0)
    top_count = at_least(1)
    _example: Tensor

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Read shapes and fillers; fill the constant tops."""
        super().__init__(param, bottoms, context)
        self.shapes = self._shapes()
        given = list(param.dummy_data_param.data_filler) or [caffe_pb2.FillerParameter()]
        if len(given) not in (1, self.num_tops):
            raise LayerError(
                "Number of data fillers must be 0, 1 or equal to the number of tops: "
                f"{self.num_tops}; you specified {len(given)} data fillers."
            )
        self.fillers = given * self.num_tops if len(given) == 1 else given
        for index, filler in enumerate(self.fillers):
            check_shape(self.shapes[index])
            value = self._filled(index, torch.empty((), dtype=context.dtype))
            if filler.type == "constant":
                self.register_buffer(f"top{index}", value, persistent=False)
        # Follows the net to its device, and tells there where to draw the others.
        self.register_buffer("_example", torch.empty((), dtype=context.dtype), persistent=False)

    def _shapes(self) -> list[Shape]:
        dummy = self.param.dummy_data_param
        old = {name: list(getattr(dummy, name)) for name in _OLD_DIMS}
        if not any(old.values()):
            return [tuple(shape.dim) for shape in self._each("shape", list(dummy.shape))]
        if dummy.shape:
            raise LayerError(
                "shape and its old form (num, channels, height, width) cannot be both specified"
            )
        return list(zip(*(self._each(name, values) for name, values in old.items()), strict=True))

    def _each(self, name: str, values: list[_Value]) -> list[_Value]:
        """Return one value per top."""
        if len(values) not in (1, self.num_tops):
            raise LayerError(
                f"Must specify '{name}' once, or once per top blob ({self.num_tops}); specified "
                f"{len(values)}."
            )
        return values * self.num_tops if len(values) == 1 else values

    def _filled(self, index: int, example: Tensor) -> Tensor:
        blob = example.new_empty(self.shapes[index])
        fill(blob, self.fillers[index], self.context.random.generator(blob.device))
        return blob

    @property
    def held_tops(self) -> Mapping[int, Tensor]:
        """The constant tops."""
        return {
            index: getattr(self, f"top{index}")
            for index, filler in enumerate(self.fillers)
            if filler.type == "constant"
        }

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the declared shapes."""
        del bottoms
        return self.shapes

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return the constant tops, and fill the others."""
        del bottoms
        held = self.held_tops
        return tuple(
            held[index] if index in held else self._filled(index, self._example)
            for index in range(self.num_tops)
        )
