"""Strategies by the name that the command line knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from prototxt_parser.text import did_you_mean
from trainer.errors import UsageError
from trainer.strategies.base import Strategy

S = TypeVar("S", bound=type[Strategy[Any, Any]])

_strategies: dict[str, type[Strategy[Any, Any]]] = {}


def register_strategy(name: str) -> Callable[[S], S]:
    """Make a strategy class known as `name`."""

    def register(cls: S) -> S:
        if name in _strategies:
            raise ValueError(f'strategy "{name}" is registered twice')
        _strategies[name] = cls
        return cls

    return register


def get_strategy(name: str) -> type[Strategy[Any, Any]]:
    """Return the class registered as `name`.

    Raises:
        UsageError: There is none.
    """
    if name not in _strategies:
        hint = did_you_mean(name, _strategies) or f"; expected {' or '.join(strategy_names())}"
        raise UsageError(f'unknown strategy "{name}"{hint}')
    return _strategies[name]


def strategy_names() -> list[str]:
    """Return all names, sorted."""
    return sorted(_strategies)
