"""`strategies`: list the exchange strategies, where they come from, and their flags."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import textwrap
from typing import Any

from trainer.extensions import add_extension_flags
from trainer.strategies import Strategy, flag, get_strategy, strategy_names

_WIDTH, _INDENT, _FLAG = 100, 4, 42


def add_parser(commands: Any) -> None:
    """Add `strategies` to the subcommands of `torrefy`."""
    parser = commands.add_parser(
        "strategies",
        help="list the strategies by which workers exchange, with paper and flags",
        allow_abbrev=False,
    )
    add_extension_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a paragraph for each strategy."""
    del args  # its modules are loaded already
    print("\n\n".join(describe(name) for name in strategy_names()))
    return 0


def describe(name: str) -> str:
    """Return what there is to know of a strategy: a line, its paper, a line for each flag."""
    strategy = get_strategy(name)
    default = strategy(strategy.options_type())
    kind = "synchronous" if default.is_synchronous else "asynchronous"
    summary, source = _doc(strategy)
    lines = [f"{name} ({kind})", *_wrapped(summary), *_wrapped(f"Source: {source}")]
    for field in dataclasses.fields(strategy.options_type):
        shown = f"{flag(field.name)} {_values(field)}".rstrip()
        lines += _wrapped(
            f"{shown:<{_FLAG}}{field.metadata['help']} (default {field.default})", _FLAG
        )
    return "\n".join(lines)


def _values(field: dataclasses.Field[Any]) -> str:
    """Return what follows a flag."""
    if "choices" in field.metadata:
        return "|".join(field.metadata["choices"])
    return "" if isinstance(field.default, bool) else type(field.default).__name__.upper()


def _doc(strategy: type[Strategy[Any, Any]]) -> tuple[str, str]:
    """Return the first line and the source of a strategy's docstring."""
    text = inspect.getdoc(strategy) or ""
    source = re.search(r"^Source:\s*(.+?)(?=\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return text.partition("\n")[0], " ".join(source[1].split()) if source else "not given"


def _wrapped(text: str, hang: int = 0) -> list[str]:
    indent = " " * _INDENT
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent + " " * hang)
