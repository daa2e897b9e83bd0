"""The page about solvers, from `solvers/`."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable

from docs.docstrings import Docstring, read_docstring
from docs.markdown import table
from docs.schema import fields
from solvers import lr_policies, update_rules
from solvers.fields import HONOURED, IGNORED
from solvers.settings import LEAST
from solvers.update_rules import SOLVER_TYPES, SolverType

_FIELDS = fields("SolverParameter")
_INTRODUCTION = """\
# Solvers

Written by `python -m docs.generate` from the code; a test compares the two.

An update, in Caffe's order: the rate of this iteration; `clip_gradients` on the sum over
`iter_size` passes; the mean of these passes; `weight_decay`; the rule; subtraction. Every history
slot begins at 0 and is saved with a snapshot, slot by slot, blob by blob.
"""


def solver_page() -> str:
    """Return the page."""
    lines = [_INTRODUCTION, "## Types", "", *_lead(update_rules)]
    for name, solver in SOLVER_TYPES.items():
        lines += _type_section(name, solver)
    lines += ["## Learning-rate policies", "", *_lead(lr_policies)]
    lines += table(("`lr_policy`", "Rate", "Reads", "Notes"), map(_policy_row, _policies()))
    lines += ["", "## Fields of a solver file", "", "`-`: no default; 0, empty or absent.", ""]
    lines += table(
        ("Field", "Type", "Default", "", "What it means"),
        map(_field_row, _FIELDS),
    )
    return "\n".join(lines) + "\n"


def reads(function: Callable[..., object]) -> list[str]:
    """Return the solver fields that a function takes from its `param`, in schema order."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    names = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "param"
    }
    return [name for name in _FIELDS if name in names]


def _lead(module: object) -> list[str]:
    """Return what a module says in front of its functions."""
    found = read_docstring(module)
    return [line for text in found.text for line in (text, "")]


def _type_section(name: str, solver: SolverType) -> list[str]:
    found = read_docstring(solver.rule)
    return [
        f"### {name}",
        "",
        _formula(found.summary),
        "",
        *(line for text in found.text for line in (text, "")),
        f"* History slots for each blob: {solver.slots}",
        f"* `momentum`: {'taken' if solver.takes_momentum else 'refused unless 0'}",
        f"* Reads {', '.join(map(_with_default, reads(solver.rule)))}",
        *(f"* {label}: {text}" for label, text in found.notes),
        "",
    ]


def _formula(summary: str) -> str:
    """Return a formula as it was before a docstring began with it."""
    return summary[0].lower() + summary[1:]


def _with_default(name: str) -> str:
    default = _FIELDS[name].default
    return f"`{name}` ({'0' if default == '-' else default})"


def _policies() -> list[Callable[..., float]]:
    return sorted([*lr_policies.POLICIES.values(), lr_policies.multistep], key=_name)


def _name(policy: Callable[..., float]) -> str:
    return policy.__name__


def _policy_row(policy: Callable[..., float]) -> tuple[str, str, str, str]:
    found = read_docstring(policy)
    names = ", ".join(f"`{name}`" for name in reads(policy))
    return f"`{_name(policy)}`", found.summary.rstrip("."), names, _notes(found)


def _notes(found: Docstring) -> str:
    return " ".join([*found.text, *(f"{label}: {text}" for label, text in found.notes)])


def _field_row(name: str) -> tuple[str, str, str, str, str]:
    field = _FIELDS[name]
    kind = "honoured" if name in HONOURED else "ignored"
    text = HONOURED.get(name) or IGNORED[name]
    if name in LEAST:
        text = f"{text} At least {LEAST[name]}."
    return f"`{name}`", field.type, field.default, kind, text
