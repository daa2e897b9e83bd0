"""Caffe's log lines, so that its log parsers work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor


def weighted(value: float, weight: float) -> str:
    """Return a value as Caffe prints it, and what it adds to the loss if it has a weight."""
    return f"{value:g} (* {weight:g} = {weight * value:g} loss)" if weight else f"{value:g}"


def output_lines(
    kind: str, outputs: Mapping[str, Tensor], loss_weights: Mapping[str, float]
) -> Iterator[str]:
    """Return a line per element of a net's outputs, numbered through.

    Args:
        kind: Train or Test.
        outputs: Values by blob name, in the net's order.
        loss_weights: Weight of every blob that has one.
    """
    number = 0
    for name, values in outputs.items():
        weight = loss_weights.get(name, 0.0)
        for value in values.detach().reshape(-1).tolist():
            yield f"    {kind} net output #{number}: {name} = {weighted(value, weight)}"
            number += 1
