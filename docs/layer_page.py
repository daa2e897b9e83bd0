"""The page about layers, from their classes and Caffe's schema."""

from __future__ import annotations

from collections.abc import Iterator

from docs.docstrings import read_docstring
from docs.markdown import table
from docs.schema import fields
from prototxt_parser import fillers, layers
from prototxt_parser.layers.base import Arity, Layer
from prototxt_parser.layers.common_fields import COMMON_FIELDS
from prototxt_parser.layers.registry import layer_class, layer_types

_FIELDS = fields("LayerParameter")
_INTRODUCTION = """\
# Layers

Written by `python -m docs.generate` from the code; a test compares the two.

A field marked *honoured* has Caffe's effect, one marked *ignored* none, and the reason is given;
values that cannot be honoured are refused when the net is built, as the text of the layer says. A
message of another type than the layer's own has no effect, as in Caffe. `-`: no default. Types of
your own: see [custom_layers.md](custom_layers.md).

## Fields of every layer
"""


def layer_page() -> str:
    """Return the page."""
    lines = [_INTRODUCTION]
    rows = [(f"`{n}`", _FIELDS[n].type, text) for n, text in COMMON_FIELDS.items()]
    lines += [*table(("Field", "Type", "What it means"), rows), ""]
    lines += _filler_section()
    for name in own_types():
        lines += _layer_section(name, layer_class(name))
    return "\n".join(lines).rstrip() + "\n"


def own_types() -> list[str]:
    """Return the types that torrefy comes with, in byte order."""
    return [
        name
        for name in layer_types()
        if layer_class(name).__module__.startswith(f"{layers.__name__}.")
    ]


def _filler_section() -> list[str]:
    rows = []
    for name, filler in fillers.FILLERS.items():
        found = read_docstring(filler)
        notes = [f"{label}: {text}" for label, text in found.notes if label != "Source"]
        summary = found.summary.partition(" Source: ")[0]
        rows.append((f"`{name}`", " ".join([summary, *found.text, *notes])))
    own = [(f"`{f.name}`", f.type, f.default) for f in fields("FillerParameter").values()]
    lines = ["## Fillers", "", *table(("`type`", "Values"), rows), ""]
    return [*lines, *table(("Field of FillerParameter", "Type", "Default"), own), ""]


def _layer_section(name: str, layer: type[Layer]) -> list[str]:
    found = read_docstring(layer)
    lines = [f"## {name}", "", found.summary, ""]
    lines += [line for text in found.text for line in (text, "")]
    lines += [f"* {label}: {text}" for label, text in found.notes if label != "Source"]
    lines += [] if found.note("Blobs") else ["* Blobs: none."]
    lines += [f"* {text}" for text in _facts(layer)]
    lines += [f"* Source: {found.note('Source')}", ""]
    for field in layer.param_fields:
        lines += [*_message_table(layer, field), ""]
    for field, reason in layer.ignored_fields.items():
        if "." not in field:
            lines += [f"`{field}` is ignored: {reason}.", ""]
    return lines


def _facts(layer: type[Layer]) -> Iterator[str]:
    tops = "as many as bottoms" if layer.tops_match_bottoms else _arity(layer.top_count)
    yield f"Bottoms: {_arity(layer.bottom_count)}. Tops: {tops}."
    if layer.bottom_count.most != 0 and layer.top_count.most != 0:
        yield f"In place: {'allowed' if layer.allows_in_place else 'refused'}."
    if layer.is_loss:
        yield "A loss: weight 1 unless `loss_weight` says otherwise."


def _arity(arity: Arity) -> str:
    if arity.most is None:
        return f"{arity.least} or more" if arity.least else "any number"
    return str(arity.least) if arity.least == arity.most else f"{arity.least} to {arity.most}"


def _message_table(layer: type[Layer], name: str) -> list[str]:
    rows = []
    for field in fields(_FIELDS[name].message).values():
        reason = layer.ignored_fields.get(f"{name}.{field.name}", "")
        effect = f"ignored: {reason}" if reason else "honoured"
        rows.append((f"`{field.name}`", field.type, field.default, effect))
    return table((f"`{name}`", "Type", "Default", ""), rows)
