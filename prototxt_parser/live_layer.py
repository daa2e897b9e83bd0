"""One layer of a `LiveNet` with its blobs: forward, backward and shapes, each on its own.

Source: caffe/include/caffe/layer.hpp, Layer::Forward, Backward, Reshape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from prototxt_parser.backward_flags import BackwardFlags
from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer
from prototxt_parser.layers.python import Python
from prototxt_parser.live_blob import Blob, BlobVec
from prototxt_parser.net import Step
from prototxt_parser.shapes import Shape


class LayerFeed(Protocol):
    """Where the batches of one data layer come from."""

    def next(self) -> Mapping[str, Tensor]:
        """Return the next batch by blob name."""


@dataclass(frozen=True)
class _Pass:
    """What a forward pass leaves for the backward pass."""

    leaves: list[Tensor]
    tops: list[Tensor]


class LiveLayer:
    """A layer between its blobs. Make it with `live_layer`.

    Args:
        step: The layer and its names.
        bottoms: What it reads.
        tops: What it writes.
        learned: Its parameters' blobs.
        flags: What it computes backward.

    Attributes:
        layer: The module.
        feed: Source of batches of a data layer; without one its tops keep what they hold.
    """

    def __init__(
        self,
        step: Step,
        bottoms: Sequence[Blob],
        tops: Sequence[Blob],
        learned: BlobVec,
        flags: BackwardFlags,
    ) -> None:
        self.step, self.flags, self.learned = step, flags, learned
        self.layer: Layer = step.layer
        self.bottoms, self.tops = tuple(bottoms), tuple(tops)
        self.feed: LayerFeed | None = None
        self._pass: _Pass | None = None
        self._shapes: list[Shape] | None = None
        for top, weight in zip(self.tops, step.loss_weights, strict=True):
            if weight:
                top.fill_diff(weight)

    def forward(self) -> float:
        """Compute the tops; return the weighted part of the objective."""
        if not self.step.is_source:
            self._compute()
        elif self.feed is not None:
            for name, value in self.feed.next().items():
                self.write_top(self.step.tops.index(name), value)
        weighted = zip(self.tops, self.step.loss_weights, strict=True)
        return sum(float((top.values() * top.gradients()).sum()) for top, w in weighted if w)

    def backward(self) -> None:
        """Overwrite the bottoms' diffs and add to the parameters', from what the tops' hold.

        Raises:
            LayerError: No forward pass before it, or `propagate_down` asks for what there is not.
        """
        if self.layer.held_tops or not (self.bottoms or self.learned):
            return  # its tops' memory is its parameter's, or nothing is below
        done = self._last_pass()
        learned = [parameter for parameter in self.layer.blobs if parameter.requires_grad]
        bottoms = [leaf for leaf in done.leaves if leaf.requires_grad]
        seeded = [
            (value, self._seed(top))
            for value, top in zip(done.tops, self.tops, strict=True)
            if value.requires_grad
        ]
        found = _gradients(seeded, [*bottoms, *learned])
        for number, leaf in enumerate(done.leaves):
            self._overwrite(number, found.get(id(leaf)))
        self._accumulate(found)

    def reshape(self) -> None:
        """Give the tops the shapes that follow from the bottoms'."""
        if self.bottoms:
            shapes = self.layer.top_shapes([bottom.shape for bottom in self.bottoms])
            for top, shape in zip(self.tops, shapes, strict=True):
                top.resize(shape)

    def write_top(self, number: int, value: Tensor) -> None:
        """Give a top shape and values."""
        self.tops[number].resize(tuple(value.shape))
        self.tops[number].values().copy_(value)

    def bind(self, diffs: Mapping[int, Tensor]) -> None:
        """Point the parameters' blobs at the parameters' memory and, by `id`, their diffs'."""
        for parameter, blob in zip(self.layer.blobs, self.learned, strict=True):
            blob.borrow(parameter, diffs[id(parameter)])
        for number, held in self.layer.held_tops.items():
            for parameter, blob in zip(self.layer.blobs, self.learned, strict=True):
                if held is parameter:
                    self.tops[number].share(blob)

    def _compute(self) -> None:
        shapes = [bottom.shape for bottom in self.bottoms]
        if shapes != self._shapes:
            self.layer.top_shapes(shapes)
            self._shapes = shapes
        leaves = [self._leaf(number) for number in range(len(self.bottoms))]
        with torch.set_grad_enabled(self.flags.runs and torch.is_grad_enabled()):
            result = self.layer(*leaves)
            self._pass = None
            values = result if isinstance(result, tuple) else (result,)
            if torch.is_grad_enabled():
                self._pass = _Pass(leaves, list(values))
        held = self.layer.held_tops
        for number, value in enumerate(values):
            if self.layer.shares_memory:
                self.tops[number].share_data(self.bottoms[0], tuple(value.shape))
            elif number not in held:
                self.write_top(number, value.detach())

    def _leaf(self, number: int) -> Tensor:
        """Return a bottom for autograd: apart from its memory if the layer is to overwrite it."""
        blob = self.bottoms[number]
        leaf = blob.values().clone() if blob in self.tops else blob.values()
        return leaf.requires_grad_(self.flags.runs and self.flags.bottoms[number])

    def _seed(self, top: Blob) -> Tensor:
        """Return a top's diff: apart from its memory if a bottom's is to overwrite it."""
        return top.gradients().clone() if top in self.bottoms else top.gradients()

    def _last_pass(self) -> _Pass:
        done = self._pass
        shapes = [top.shape for top in self.tops]
        if done is None or [tuple(value.shape) for value in done.tops] != shapes:
            raise LayerError(
                "backward needs a forward pass before it, on blobs of the shapes they have now"
            )
        return done

    def _overwrite(self, number: int, gradient: Tensor | None) -> None:
        forced = self.step.param.propagate_down
        if gradient is not None:
            self.bottoms[number].gradients().copy_(gradient)
        elif forced and forced[number] and self.flags.bottoms[number]:
            raise LayerError(
                f"{self.step.param.type} Layer cannot backpropagate to label inputs, nor to others "
                f'that only choose; take propagate_down: true from "{self.step.bottoms[number]}"'
            )
        elif self.flags.bottoms[number]:
            self.bottoms[number].gradients().zero_()  # in place, it still holds the top's

    def _accumulate(self, found: Mapping[int, Tensor | None]) -> None:
        learned = zip(self.layer.blobs, self.layer.blob_names, self.learned, strict=True)
        for parameter, name, blob in learned:
            gradient = found.get(id(parameter))
            if gradient is None:
                continue
            if name in self.layer.replaced_gradients:
                blob.gradients().copy_(gradient)
            else:
                blob.gradients().add_(gradient)


class LivePythonLayer(LiveLayer):
    """A layer of the user's: its methods get the net's own blobs, and raise what they raise."""

    layer: Python

    def backward(self) -> None:
        """Call the user's `backward`."""
        self.layer.user.backward(self.tops, self.flags.bottoms, self.bottoms)

    def reshape(self) -> None:
        """Call the user's `reshape`."""
        self.layer.user.reshape(self.bottoms, self.tops)

    def _compute(self) -> None:
        self.reshape()
        self.layer.user.forward(self.bottoms, self.tops)


def live_layer(
    step: Step, flags: BackwardFlags, blobs: Mapping[str, Blob], shapes: Mapping[str, Shape]
) -> LiveLayer:
    """Return `step` with its blobs.

    Args:
        step: The layer.
        flags: What it computes backward.
        blobs: By name, those of the layers before it: its bottoms, and its tops in place.
        shapes: Shapes of new tops by name; one that is missing is a scalar.
    """
    bottoms = [blobs[name] for name in step.bottoms]
    tops = [
        blobs[name]
        if number < len(bottoms) and step.bottoms[number] == name
        else _new_top(step.layer, number, shapes.get(name, ()))
        for number, name in enumerate(step.tops)
    ]
    if isinstance(step.layer, Python):
        return LivePythonLayer(step, bottoms, tops, step.layer.user.blobs, flags)
    learned = BlobVec([Blob() for _ in step.layer.blobs])
    return LiveLayer(step, bottoms, tops, learned, flags)


def _new_top(layer: Layer, number: int, shape: Shape) -> Blob:
    if isinstance(layer, Python):
        return layer.tops[number]
    blob, held = Blob(shape), layer.held_tops.get(number)
    if held is not None:
        blob.borrow(held)
    return blob


def _gradients(
    seeded: Sequence[tuple[Tensor, Tensor]], sources: Sequence[Tensor]
) -> dict[int, Tensor | None]:
    """Return the gradients of `sources` by `id`; None where none arrives."""
    if not seeded or not sources:
        return {}
    found = torch.autograd.grad(
        [value for value, _ in seeded],
        sources,
        [seed for _, seed in seeded],
        retain_graph=True,  # as in Caffe, backward may run again
        allow_unused=True,
    )
    return dict(zip(map(id, sources), found, strict=True))
