"""A net that runs layer by layer over blobs which the caller may read and write at any time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from prototxt_parser.backward_flags import backward_flags
from prototxt_parser.debug_info import log_gradients, log_norms, log_values
from prototxt_parser.errors import LayerError, PrototxtError
from prototxt_parser.live_blob import Blob
from prototxt_parser.live_layer import LiveLayer, live_layer
from prototxt_parser.net import Net

Hook = Callable[[int], object]


@dataclass(frozen=True)
class Hooks:
    """Functions that get a layer's number, run around every layer of a pass."""

    before_forward: list[Hook] = field(default_factory=list)
    after_forward: list[Hook] = field(default_factory=list)
    before_backward: list[Hook] = field(default_factory=list)
    after_backward: list[Hook] = field(default_factory=list)


class LiveNet(Net):
    """A `Net` with Caffe's own way of running: forward and backward over ranges of layers.

    Every layer reads its bottoms' memory when it runs and writes its tops'; its backward pass reads
    the tops' diffs, overwrites the bottoms' and adds to its parameters'. So what somebody writes
    into a blob between two layers counts. Gradients are autograd's, one layer at a time.
    On the CPU, in float32.
    Source: caffe/src/caffe/net.cpp, Net::ForwardFromTo, BackwardFromTo.

    Attributes:
        live: The layers with their blobs, in order.
        named_blobs: Every blob with its name, in the order of creation, automatic tops included.
        hooks: Run around every layer.
    """

    def __init__(self, *args: Any, force_backward: bool, **settings: Any) -> None:
        super().__init__(*args, force_backward=force_backward, **settings)
        self.hooks = Hooks()
        self._loss = 0.0
        self._diff_memory = self.flat.grad
        self._diffs = {id(owner): diff for owner, diff in self.flat.views(self._diff_memory)}
        self.live: list[LiveLayer] = []
        self._wire(force_backward)
        self.named_blobs = _named_blobs(self.live)
        self._bind_parameters()
        self._publish()

    @property
    def loss(self) -> Tensor:
        """The objective of the last forward pass, or of the layers of it that ran."""
        return torch.tensor(self._loss)

    def forward(self, inputs: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Write `inputs` into their blobs, if there are any, and run all layers.

        Returns:
            The output blobs by name, in byte order: tensors over the blobs' memory.

        Raises:
            PrototxtError: An input is unknown, or a layer refuses its bottoms.
        """
        for name, value in (inputs or {}).items():
            self._write_input(name, value)
        self.run_forward(0, len(self.live) - 1)
        return {name: self.blobs[name] for name in self.outputs}

    def backward(self, top_diffs: Mapping[str, Tensor] | None = None) -> None:
        """Run all layers backward from what the tops' diffs hold, after writing `top_diffs`."""
        for name, diff in (top_diffs or {}).items():
            self.diff(name).copy_(diff)
        self.run_backward(len(self.live) - 1, 0)

    def diff(self, name: str) -> Tensor:
        """Return the diff of blob `name`, a tensor over its memory."""
        return dict(self.named_blobs)[name].gradients()

    def run_forward(self, start: int, end: int) -> float:
        """Run the layers `start` to `end`, both included; return their part of the objective."""
        self._loss = 0.0
        for index in range(start, end + 1):
            live = self.live[index]
            _call(self.hooks.before_forward, index)
            try:
                self._loss += live.forward()
            except LayerError as error:
                raise live.step.located(error) from error
            if self.debug_info:
                log_values(live.step, [top.values() for top in live.tops])
            _call(self.hooks.after_forward, index)
        self._publish()
        return self._loss

    def run_backward(self, start: int, end: int) -> None:
        """Run the layers `start` down to `end`, both included, as far as they take part."""
        for index in range(start, end - 1, -1):
            live = self.live[index]
            _call(self.hooks.before_backward, index)
            if live.flags.runs:
                try:
                    live.backward()
                except LayerError as error:
                    raise live.step.located(error) from error
                if self.debug_info:
                    self._log_backward(live)
            _call(self.hooks.after_backward, index)
        if self.debug_info and self._flat is not None:
            log_norms(self._flat.data, self._diff_memory)

    def reshape(self) -> None:
        """Give every blob the shape that follows from the inputs', without computing."""
        for live in self.live:
            try:
                live.reshape()
            except LayerError as error:
                raise live.step.located(error) from error
        self._publish()

    def clear_param_diffs(self) -> None:
        """Set the parameters' diffs to 0."""
        self._diff_memory.zero_()

    def share_with(self, other: Net) -> None:
        """Use the parameters of `other`, layer by layer name; diffs stay apart."""
        super().share_with(other)
        self._bind_parameters()

    def _wire(self, force_backward: bool) -> None:
        blobs: dict[str, Blob] = {}
        flags = backward_flags(self.steps, force=force_backward)
        for step, flag in zip(self.steps, flags, strict=True):
            live = live_layer(step, flag, blobs, self.blob_shapes)
            blobs.update(zip(step.tops, live.tops, strict=True))
            self.live.append(live)

    def _bind_parameters(self) -> None:
        for live in self.live:
            live.bind(self._diffs)

    def _publish(self) -> None:
        """Let `blobs` show what there is now."""
        self.blobs = {name: blob.values() for name, blob in self.named_blobs}

    def _write_input(self, name: str, value: Tensor) -> None:
        for live in self.live:
            if live.step.is_source and name in live.step.tops:
                live.write_top(live.step.tops.index(name), value)
                return
        raise PrototxtError(
            f'net "{self.name}": Input blob arguments do not match net inputs. Unknown: {name}'
        )

    def _log_backward(self, live: LiveLayer) -> None:
        reached = zip(live.step.bottoms, live.bottoms, live.flags.bottoms, strict=True)
        log_gradients(
            live.step,
            [(name, blob.gradients()) for name, blob, is_reached in reached if is_reached],
            [blob.gradients() for blob in live.learned],
        )


def _named_blobs(layers: Sequence[LiveLayer]) -> list[tuple[str, Blob]]:
    found: dict[int, tuple[str, Blob]] = {}
    for live in layers:
        for name, blob in zip(live.step.tops, live.tops, strict=True):
            found.setdefault(id(blob), (name, blob))
    return list(found.values())


def _call(hooks: Sequence[Hook], index: int) -> None:
    for hook in hooks:
        hook(index)
