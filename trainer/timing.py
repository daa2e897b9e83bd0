"""How long each layer of a net takes, forward and backward.

Source: caffe/tools/caffe.cpp, time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.net import Net, Step
from solvers.feed import Feed, zero_inputs


@dataclass
class LayerTime:
    """Time spent in a layer.

    Attributes:
        name: Name of the layer.
        forward: Seconds of all its forward passes so far.
        backward: Seconds of all its backward passes so far.
    """

    name: str
    forward: float = 0.0
    backward: float = 0.0


@dataclass(frozen=True)
class _Pass:
    """A layer that ran forward: what its backward pass starts from, and leads to."""

    step: Step
    bottoms: Sequence[Tensor]
    tops: Sequence[Tensor]


class NetTimer:
    """Runs a net layer by layer, each cut off from its neighbours, and adds up the times.

    So that a layer's backward pass can be timed alone, its bottoms are leaves of autograd, and the
    gradients that arrive there are handed to the layer below as Caffe hands over a blob's diff: by
    name, zeros where none arrived. A layer computes the gradients that training needs: none
    towards data, and none in a layer from which nothing is learned. Handing over is not timed, so
    the time of a pass is the sum of its layers'. On a GPU each reading waits for the work so far.

    Differs from Caffe: there the time of a pass includes the loop around the layers.

    Args:
        net: The net.
        feeds: What fills each data layer, by the layer's name; its forward time is that of reading
            and copying a batch. Input layers get zeros.
        device: Where the net is.

    Attributes:
        times: Of every layer, in the net's order.
    """

    def __init__(self, net: Net, feeds: Mapping[str, Feed], device: str) -> None:
        self._net, self._feeds, self._device = net, feeds, torch.device(device)
        self._zeros = zero_inputs(net)
        self._passes: list[_Pass] = []
        self.times = [LayerTime(step.param.name) for step in net.steps]

    @property
    def total(self) -> float:
        """Seconds of all passes so far."""
        return sum(spent.forward + spent.backward for spent in self.times)

    def forward(self) -> float:
        """Run all layers forward; returns the loss."""
        blobs: dict[str, Tensor] = {}
        self._passes = [
            self._forward(step, blobs, spent)
            for step, spent in zip(self._net.steps, self.times, strict=True)
        ]
        return sum(
            weight * float(top.detach().sum())
            for ran in self._passes
            for top, weight in zip(ran.tops, ran.step.loss_weights, strict=True)
            if weight
        )

    def backward(self) -> None:
        """Run all layers of the last forward pass backward, last first."""
        diffs: dict[str, Tensor] = {}
        for ran, spent in zip(reversed(self._passes), reversed(self.times), strict=True):
            self._backward(ran, diffs, spent)
        self._passes = []

    def reset(self) -> None:
        """Forget the times so far, such as those of passes that warmed up."""
        self.times = [LayerTime(spent.name) for spent in self.times]

    def _forward(self, step: Step, blobs: dict[str, Tensor], spent: LayerTime) -> _Pass:
        bottoms = [] if step.is_source else self._leaves(step, blobs)
        start = self._clock()
        if step.is_source:
            read = self._read(step)
            tops = tuple(self._net.as_input(read[top]) for top in step.tops)
        else:
            tops = _run(step, bottoms)
        spent.forward += self._clock() - start
        blobs.update(zip(step.tops, tops, strict=True))
        return _Pass(step, bottoms, tops)

    def _backward(self, ran: _Pass, diffs: dict[str, Tensor], spent: LayerTime) -> None:
        roots, seeds = [], []
        for name, top, weight in zip(ran.step.tops, ran.tops, ran.step.loss_weights, strict=True):
            diff = diffs.pop(name, None)
            if top.grad_fn is None:
                continue
            diff = torch.zeros_like(top) if diff is None else diff
            roots.append(top)
            seeds.append(diff + weight)
        start = self._clock()
        if roots:
            torch.autograd.backward(roots, seeds)
        spent.backward += self._clock() - start
        for name, bottom in zip(ran.step.bottoms, ran.bottoms, strict=True):
            if bottom.grad is not None:
                diffs[name] = bottom.grad

    def _read(self, step: Step) -> Mapping[str, Tensor]:
        if step.param.type == "Input":
            return self._zeros
        return self._feeds[step.param.name].next()

    def _leaves(self, step: Step, blobs: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the bottoms as leaves, which want gradients as `propagate_down` says."""
        values = [blobs[name] for name in step.bottoms]
        wanted = self._net.propagate_down(step) or [value.requires_grad for value in values]
        return [
            value.detach().requires_grad_(is_wanted and value.is_floating_point())
            for value, is_wanted in zip(values, wanted, strict=True)
        ]

    def _clock(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _run(step: Step, bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
    try:
        tops = step.layer(*bottoms)
    except LayerError as error:
        raise step.located(error) from error
    return tops if isinstance(tops, tuple) else (tops,)
