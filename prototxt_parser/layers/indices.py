"""Indices that travel through a net as floats."""

from __future__ import annotations

from torch import Tensor

from prototxt_parser.errors import LayerError


def integers(blob: Tensor, end: int, end_name: str) -> Tensor:
    """Return the integer parts of `blob`.

    Raises:
        LayerError: One is not in [0, `end`); `end_name` says what `end` is.
    """
    indices = blob.detach().long()
    outside = indices[(indices < 0) | (indices >= end)]
    if outside.numel():
        raise LayerError(
            f"indices must be at least 0 and below {end_name} {end}; received {outside[0].item()}"
        )
    return indices
