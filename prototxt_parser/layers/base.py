"""What every layer is: shapes, blobs in caffemodel order, forward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from prototxt_parser.blobs import blob_to_tensor
from prototxt_parser.errors import LayerError
from prototxt_parser.fillers import fill
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.random_source import RandomSource
from prototxt_parser.shapes import Shape, check_shape, shape_text


@dataclass(frozen=True)
class Arity:
    """How many bottoms or tops a layer takes.

    Attributes:
        least: Smallest number.
        most: Largest number; None for any.
    """

    least: int
    most: int | None

    def check(self, type_name: str, what: str, received: int) -> None:
        """Raise LayerError with Caffe's phrase unless `received` fits; `what` is bottom or top."""
        verb, role = ("takes", "input") if what == "bottom" else ("produces", "output")
        if self.least == self.most and received != self.least:
            wanted = f"{self.least}"
        elif received < self.least:
            wanted = f"at least {self.least}"
        elif self.most is not None and received > self.most:
            wanted = f"at most {self.most}"
        else:
            return
        raise LayerError(
            f"{type_name} Layer {verb} {wanted} {what} blob(s) as {role}; received {received}"
        )


def exactly(number: int) -> Arity:
    """Return the arity of a fixed number of blobs."""
    return Arity(number, number)


def at_least(number: int) -> Arity:
    """Return the arity of `number` blobs or more."""
    return Arity(number, None)


@dataclass(frozen=True)
class LayerContext:
    """What a layer may know of the net it is built into.

    Attributes:
        phase: TRAIN (0) or TEST (1); a layer that sets its own `phase` gets that instead.
        random: Source of the net's random numbers.
        dtype: Type of the blobs; float32 as Caffe's tools, float64 for gradient checks.
        input_shapes: Shapes of the blobs that data layers fill, by blob name.
    """

    phase: int
    random: RandomSource
    dtype: torch.dtype
    input_shapes: dict[str, Shape]


class Layer(nn.Module, ABC):
    """One layer of a net.

    A subclass is registered under Caffe's type string (`registry.register_layer`), reads its
    settings in `__init__`, adds its blobs with `add_blob` in caffemodel order, and says
    `top_shapes` and `forward`. Gradients are autograd's. What a layer cannot do it refuses with a
    `LayerError`; the net puts place, name and type in front of the message.

    Attributes:
        bottom_count: Number of bottoms it takes.
        top_count: Number of tops it produces.
        tops_match_bottoms: One top per bottom (Convolution).
        is_loss: Its first top has loss weight 1 unless the definition says otherwise, and may be
            left out of the definition.
        is_fed: The net is given its tops instead of computing them (Input and data layers).
        allows_in_place: Whether a top may have the name of its bottom.
        state_names: Buffers that carry state from one forward pass to the next.
        param_fields: The messages of `LayerParameter` that hold its settings.
        ignored_fields: Settings without effect, as "message" or "message.field", and why. All
            others are honoured, or refused.
        shares_memory: In Caffe its tops are the memory of its bottom; only `LiveNet` looks.
    """

    bottom_count: ClassVar[Arity] = exactly(1)
    top_count: ClassVar[Arity] = exactly(1)
    tops_match_bottoms: ClassVar[bool] = False
    is_loss: ClassVar[bool] = False
    is_fed: ClassVar[bool] = False
    allows_in_place: ClassVar[bool] = True
    state_names: ClassVar[tuple[str, ...]] = ()
    param_fields: ClassVar[tuple[str, ...]] = ()
    ignored_fields: ClassVar[Mapping[str, str]] = MappingProxyType({})
    shares_memory: ClassVar[bool] = False

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Read the settings. `bottoms` are the shapes at construction; batch sizes may change."""
        super().__init__()
        del bottoms
        self.param = param
        self.context = context
        self.num_tops = len(param.top) or int(self.is_loss)
        self._blob_names: list[str] = []

    @abstractmethod
    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the shapes of the tops for bottoms of these shapes."""

    @abstractmethod
    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute the tops: a tensor for one top, else a tuple."""

    @property
    def blobs(self) -> list[nn.Parameter]:
        """The learned blobs in caffemodel order."""
        return [getattr(self, name) for name in self._blob_names]

    @property
    def blob_names(self) -> tuple[str, ...]:
        """PyTorch's names of the blobs, in the same order."""
        return tuple(self._blob_names)

    @property
    def statistics(self) -> frozenset[str]:
        """Names of the blobs that are running statistics, not weights."""
        return frozenset()

    @property
    def held_tops(self) -> Mapping[int, Tensor]:
        """Tops, by number, that are memory of the layer's own which no forward pass rewrites.

        What somebody writes into such a blob of a `LiveNet` persists.
        """
        return {}

    @property
    def replaced_gradients(self) -> frozenset[str]:
        """Names of blobs whose next gradient replaces the accumulated one, as of the last forward.

        A defect of a few of Caffe's layers, visible with iter_size > 1 or shared blobs.
        """
        return frozenset()

    def add_blob(self, name: str, shape: Shape, filler: caffe_pb2.FillerParameter) -> None:
        """Add a learned blob called `name`, filled, or loaded if the definition holds blobs.

        Raises:
            LayerError: No blob can have this shape, the definition holds one of another, or the
                filler refuses.
        """
        check_shape(shape)
        index = len(self._blob_names)
        blob = torch.zeros(shape, dtype=self.context.dtype)
        if self.param.blobs:
            self._load_inline(index, blob)
        else:
            fill(blob, filler, self.context.random.generator())
        self.register_parameter(name, nn.Parameter(blob))
        self._blob_names.append(name)

    def _load_inline(self, index: int, blob: Tensor) -> None:
        if index >= len(self.param.blobs):
            raise LayerError(
                f"Incompatible number of blobs: the definition holds {len(self.param.blobs)}, "
                f"the layer needs more"
            )
        value = blob_to_tensor(self.param.blobs[index])
        if value.shape != blob.shape:
            raise LayerError(
                f"Incorrect blob {index} shape: expected shape {shape_text(blob.shape)}; "
                f"received {shape_text(value.shape)}"
            )
        blob.copy_(value)
