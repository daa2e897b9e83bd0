"""The lines that `debug_info` adds to the log: mean absolute values, layer by layer.

Source: caffe/src/caffe/net.cpp, Net::ForwardDebugInfo, BackwardDebugInfo, Backward.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from prototxt_parser.net import Net, Step

logger = logging.getLogger(__name__)


class DebugTrace:
    """What one forward pass went through, kept until its backward pass is logged."""

    def __init__(self) -> None:
        self._bottoms: list[tuple[Step, Sequence[Tensor]]] = []

    def forward(self, step: Step, bottoms: Sequence[Tensor], tops: Sequence[Tensor]) -> None:
        """Log a layer's tops and blobs, and keep its bottoms for `backward`."""
        log_values(step, tops)
        for bottom in bottoms:
            if bottom.requires_grad:
                bottom.retain_grad()
        self._bottoms.append((step, bottoms))

    def backward(self, net: Net) -> None:
        """Log the gradients of every layer that ran backward, last layer first."""
        for step, bottoms in reversed(self._bottoms):
            named = zip(step.bottoms, bottoms, strict=True)
            log_gradients(
                step,
                [(name, bottom.grad) for name, bottom in named if bottom.grad is not None],
                [parameter.grad for parameter in step.layer.blobs],
            )
        log_norms(net.flat.data, net.flat.grad)


def log_values(step: Step, tops: Sequence[Tensor]) -> None:
    """Log the tops of one layer after its forward pass, and its blobs."""
    name = step.param.name
    for blob, value in zip(step.tops, tops, strict=True):
        logger.info("    [Forward] Layer %s, top blob %s data: %g", name, blob, _mean(value))
    for label, parameter in _labelled(step):
        logger.info("    [Forward] Layer %s, param blob %s data: %g", name, label, _mean(parameter))


def log_gradients(
    step: Step, bottoms: Sequence[tuple[str, Tensor]], learned: Sequence[Tensor | None]
) -> None:
    """Log the gradients of one layer that ran backward.

    Args:
        step: The layer.
        bottoms: Name and gradient of the bottoms that got one.
        learned: Gradients of the layer's blobs; None for one that gets none.
    """
    name = step.param.name
    for blob, diff in bottoms:
        logger.info("    [Backward] Layer %s, bottom blob %s diff: %g", name, blob, _mean(diff))
    for (label, _), gradient in zip(_labelled(step), learned, strict=True):
        if gradient is not None:
            logger.info(
                "    [Backward] Layer %s, param blob %s diff: %g", name, label, _mean(gradient)
            )


def log_norms(data: Tensor, grad: Tensor) -> None:
    """Log the norms of all parameters and of their gradients."""
    norms = (torch.linalg.vector_norm(t, n) for n in (1, 2) for t in (data, grad))
    logger.error(  # at this level in Caffe too
        "    [Backward] All net params (data, diff): L1 norm = (%g, %g); L2 norm = (%g, %g)",
        *map(float, norms),
    )


def _mean(values: Tensor) -> float:
    return float(values.detach().abs().mean()) if values.numel() else 0.0


def _labelled(step: Step) -> list[tuple[str, Tensor]]:
    """Return a layer's blobs by the name that they are shared by, or by their number."""
    specs = [spec.name for spec in step.param.param]
    blobs = step.layer.blobs
    names = specs + [""] * (len(blobs) - len(specs))
    return [(name or str(i), blob) for i, (name, blob) in enumerate(zip(names, blobs, strict=True))]
