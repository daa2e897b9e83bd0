"""Exchanges at half the bytes: what is sent is rounded, and what rounding lost is sent later."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import CenterLink, Move, Pull, Traffic
from trainer.strategies.arithmetic import Layout


@final
class CompressedLink:
    """A `CenterLink` that sends and gets tensors in a narrow type.

    With e the residual, which starts at 0, Q rounding to the type, and u what is to be sent, it
    sends q = Q(u + e) and keeps e ← u + e - q, element by element in float32: so errors do not add
    up over the exchanges, but are made good in the next one. The worker's running statistics are
    rounded without that: each is an average that replaces the last, not a step.

    What the centre answers is rounded once, without feedback: the centre itself keeps float32, so
    the next answer does not contain the error of this one.

    Args:
        link: What it sends over. A link over a network carries the narrow values themselves; any
            other need only widen them.
        dtype: torch.float16 or torch.bfloat16.
        layout: Which parts of a tensor are weights.

    Source: Seide et al. 2014 (1-bit SGD), section 3.2; Karimireddy et al. 2019 (EF-SGD),
    algorithm 1.
    """

    def __init__(self, link: CenterLink, dtype: torch.dtype, layout: Layout) -> None:
        self._link, self._dtype, self._layout = link, dtype, layout
        self._residual = torch.empty(0)

    @property
    def traffic(self) -> Traffic:
        """See `CenterLink.traffic`."""
        return self._link.traffic

    def exchange(
        self, sent: Tensor, move: Move, iteration: int, *, is_answered: bool = True
    ) -> Pull:
        """See `CenterLink.exchange`.

        Raises:
            TrainerError: A value is too large for the type; or as the link says.
        """
        pull = self._link.exchange(self._quantized(sent), move, iteration, is_answered=is_answered)
        return Pull(self._rounded(pull.center), pull.staleness)

    def fetch(self) -> Tensor:
        """See `CenterLink.fetch`; the only call that stays in float32."""
        return self._link.fetch()

    def shared(self) -> Tensor:
        """See `CenterLink.shared`."""
        return self._link.shared()

    def _quantized(self, sent: Tensor) -> Tensor:
        """Return Q(u + e), and keep what it lost."""
        if not sent.numel():
            return sent.to(self._dtype)
        if not self._residual.numel():
            self._residual = torch.zeros_like(sent)
        total = self._residual.add_(sent)
        quantized = narrowed(total, self._dtype)
        total.sub_(quantized)
        for part in self._layout.statistics:
            total[part] = 0
        return quantized

    def _rounded(self, center: Tensor) -> Tensor:
        """Return an answer as it is after its way, in float32; a network has rounded it already."""
        return narrowed(center, self._dtype).float()


def narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `tensor` rounded to `dtype`, to nearest, ties to even.

    NaN and infinity pass: they are the centre's to refuse, which says more about them.

    Raises:
        TrainerError: A value is too large for `dtype`.
    """
    if tensor.dtype == dtype or not tensor.numel():
        return tensor.to(dtype)
    largest = torch.stack(tensor.aminmax()).abs().max()
    if largest.isfinite() and largest.to(dtype).isinf():
        name = str(dtype).removeprefix("torch.")
        wider = "bfloat16, which has the range of float32" if name == "float16" else "float32"
        raise TrainerError(
            f"a value of {largest:.4g} cannot be exchanged in {name}, whose largest is "
            f"{torch.finfo(dtype).max:.4g}: exchange in {wider}"
        )
    return tensor.to(dtype)
