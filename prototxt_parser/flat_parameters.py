"""All learnable blobs of a net as views of one contiguous buffer, their gradients as another.

So an update is one pass, an exchange one message, a snapshot one copy, an average one all-reduce.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prototxt_parser.shapes import Shape


@dataclass(frozen=True)
class Segment:
    """Where one learnable blob lies in the flat buffer.

    Attributes:
        layer: Name of the layer that owns the blob.
        index: Number of the blob in the layer.
        offset: First element in the buffer.
        size: Number of elements.
        shape: Shape of the blob.
        lr_mult: Factor on the learning rate.
        decay_mult: Factor on the weight decay.
        is_statistic: A running statistic (BatchNorm), not a weight.
    """

    layer: str
    index: int
    offset: int
    size: int
    shape: Shape
    lr_mult: float
    decay_mult: float
    is_statistic: bool

    @property
    def slice(self) -> slice:
        """The segment's place in a flat buffer."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Slot:
    """A learnable blob before it has a place: its owner's parameter and all that share it."""

    layer: str
    index: int
    parameters: tuple[nn.Parameter, ...]
    lr_mult: float
    decay_mult: float
    is_statistic: bool


class FlatParameters:
    """The flat buffers of a net.

    Args:
        slots: Learnable blobs in net order, each once; their parameters are turned into views.

    Attributes:
        data: All values, shape (P,).
        segments: Where each blob lies, in order.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = tuple(slots)
        self.segments = tuple(_segments(slots))
        owners = [slot.parameters[0].detach().reshape(-1) for slot in slots]
        self.data = torch.cat(owners) if owners else torch.zeros(0)
        self._grad: Tensor | None = None
        for parameter, values in self.views(self.data):
            parameter.data = values

    @property
    def grad(self) -> Tensor:
        """All gradients, shape (P,); on first use every parameter's `grad` becomes a view of it.

        Autograd then adds into the buffer, as Caffe's layers add into their diffs: clear it with
        `grad.zero_()`. A parameter that takes no gradient keeps zeros.
        """
        if self._grad is None:
            self._grad = torch.zeros_like(self.data)
            for parameter, values in self.views(self._grad):
                if parameter.requires_grad:
                    parameter.grad = values
        return self._grad

    def rebuilt(self) -> FlatParameters:
        """Return new buffers over the parameters' present values, type and device."""
        for slot in self._slots:
            for parameter in slot.parameters:
                parameter.grad = None
        return FlatParameters(self._slots)

    def split(self, flat: Tensor) -> list[Tensor]:
        """Return the blobs of a flat tensor of this layout as shaped views."""
        return [flat[segment.slice].view(segment.shape) for segment in self.segments]

    def views(self, flat: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield every parameter with its place in a flat tensor of this layout."""
        for slot, segment in zip(self._slots, self.segments, strict=True):
            for parameter in slot.parameters:
                yield parameter, flat[segment.slice].view(parameter.shape)


def _segments(slots: Sequence[Slot]) -> Iterator[Segment]:
    offset = 0
    for slot in slots:
        owner = slot.parameters[0]
        yield Segment(
            slot.layer,
            slot.index,
            offset,
            owner.numel(),
            tuple(owner.shape),
            slot.lr_mult,
            slot.decay_mult,
            slot.is_statistic,
        )
        offset += owner.numel()
