"""What a comparison compares: strategies, each with a number of workers and its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, final

from trainer.errors import UsageError
from trainer.plan import SINGLE
from trainer.strategies import flag, get_strategy, strategy_names

Values = Mapping[str, Sequence[Any]]


@final
@dataclass(frozen=True)
class Combination:
    """A strategy as it is run.

    Attributes:
        strategy: Its name; `single` is one process.
        workers: How many; 1 for `single`.
        options: Names and values of the strategy's options that are not left to their defaults.
    """

    strategy: str
    workers: int = 1
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """A name for files, such as `sparknet-2-sync_interval=10`."""
        parts = [f"{name}={_text(value)}" for name, value in self.options]
        return "-".join([self.strategy, *([] if self.is_single else [str(self.workers)]), *parts])

    @property
    def label(self) -> str:
        """A name for people, such as `sparknet, 2 workers, sync_interval 10`."""
        if self.is_single:
            return self.strategy
        parts = [
            name if value is True else f"{name} {_text(value)}" for name, value in self.options
        ]
        return ", ".join([self.strategy, f"{self.workers} workers", *parts])

    @property
    def is_single(self) -> bool:
        """Whether it is one process."""
        return self.strategy == SINGLE

    @property
    def words(self) -> list[str]:
        """Flags of `train`."""
        if self.is_single:
            return ["--strategy", SINGLE]
        words = ["--strategy", self.strategy, "--workers", str(self.workers)]
        for name, value in self.options:
            if value is True:
                words.append(flag(name))
            elif value is not False:
                words += [flag(name), str(value)]
        return words


def combine(strategies: Sequence[str], workers: Sequence[int], values: Values) -> list[Combination]:
    """Return every combination there is.

    A strategy is combined with the options that are its own; `single` with nothing.

    Args:
        strategies: Names.
        workers: Numbers of workers.
        values: Values by the name of an option.

    Raises:
        UsageError: There is no such strategy, no strategy has such an option, or an option does not
            take such a value.
    """
    known: set[str] = set()
    found: list[Combination] = []
    for strategy in strategies:
        own = {} if strategy == SINGLE else _fields(strategy)
        known |= own.keys()
        chosen = {name: listed for name, listed in values.items() if name in own}
        found += _of_strategy(strategy, workers, chosen)
    foreign = sorted(values.keys() - known)
    if foreign:
        raise UsageError(f"{', '.join(foreign)}: not an option of {', '.join(strategies)}")
    return list(dict.fromkeys(found))


def parse_value(name: str, text: str) -> Any:
    """Return the value of an option from its text, by the type of the option's default.

    Raises:
        UsageError: The text is of no such value, or no strategy has the option.
    """
    for strategy in strategy_names():
        default = _fields(strategy).get(name)
        if default is None:
            continue
        try:
            return _parse(type(default), text)
        except ValueError as error:
            raise UsageError(
                f"{name}: expected {type(default).__name__}; received {text}"
            ) from error
    raise UsageError(f"{name}: no strategy has such an option; `torrefy strategies` lists them")


def _of_strategy(strategy: str, workers: Sequence[int], values: Values) -> Iterator[Combination]:
    if strategy == SINGLE:
        yield Combination(SINGLE)
        return
    options_type = get_strategy(strategy).options_type
    for count, *chosen in product(workers, *values.values()):
        options = tuple(zip(values, chosen, strict=True))
        try:
            options_type(**dict(options)).check_workers(count)
        except TypeError as error:
            raise UsageError(f"{strategy}: {dict(options)}: {error}") from error
        yield Combination(strategy, count, options)


def _fields(strategy: str) -> dict[str, Any]:
    """Return the options of a strategy, with their defaults."""
    return {
        field.name: field.default
        for field in dataclasses.fields(get_strategy(strategy).options_type)
    }


def _parse(kind: type, text: str) -> Any:
    if kind is not bool:
        return kind(text)
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
