"""Caffe's log lines, so that its log parsers work."""

from __future__ import annotations


def output_line(kind: str, number: int, name: str, value: float, weight: float) -> str:
    """Return the line of one output element; `kind` is Train or Test, `weight` its loss weight."""
    line = f"    {kind} net output #{number}: {name} = {value:g}"
    return f"{line} (* {weight:g} = {weight * value:g} loss)" if weight else line
