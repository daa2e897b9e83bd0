"""Which layers run backward, and to which bottoms, as Caffe decides it before the first pass.

Source: caffe/src/caffe/net.cpp, Net::Init, AppendBottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prototxt_parser.net import Step


@dataclass
class BackwardFlags:
    """What one layer computes in a backward pass.

    Attributes:
        runs: Whether it runs at all.
        bottoms: Which bottoms get a gradient from it.
    """

    runs: bool
    bottoms: list[bool]


def backward_flags(steps: Sequence[Step], *, force: bool) -> list[BackwardFlags]:
    """Return the flags of every layer.

    Args:
        steps: The layers in order.
        force: `force_backward`: every layer runs, and reaches every bottom that has a gradient.
    """
    if force:
        return [BackwardFlags(True, [True] * len(step.bottoms)) for step in steps]
    flags = _needed(steps)
    _drop_what_no_loss_sees(steps, flags)
    return flags


def _needed(steps: Sequence[Step]) -> list[BackwardFlags]:
    """Mark what lies above a learned parameter; `propagate_down` replaces that for bottoms."""
    reached: set[str] = set()
    flags = []
    for step in steps:
        needs = [name in reached for name in step.bottoms]
        runs = any(needs) or _learns(step)
        if runs:
            reached.update(step.tops)
        flags.append(BackwardFlags(runs, list(step.param.propagate_down) or needs))
    return flags


def _learns(step: Step) -> bool:
    """Return whether any blob has lr_mult != 0; statistics without an entry have 1 here."""
    written = [spec.lr_mult for spec in step.param.param]
    return any(written) or len(written) < len(step.layer.blobs)


def _drop_what_no_loss_sees(steps: Sequence[Step], flags: Sequence[BackwardFlags]) -> None:
    under_loss: set[str] = set()
    skipped: set[str] = set()
    for step, flag in zip(reversed(steps), reversed(flags), strict=True):
        contributes = any(step.loss_weights) or not under_loss.isdisjoint(step.tops)
        if flag.runs and skipped.issuperset(step.tops):
            flag.runs, flag.bottoms = False, [False] * len(flag.bottoms)
        if contributes:
            under_loss.update(step.bottoms)
        else:
            flag.runs, flag.bottoms = False, [False] * len(flag.bottoms)
        skipped.update(
            name
            for name, is_reached in zip(step.bottoms, flag.bottoms, strict=True)
            if not is_reached
        )
