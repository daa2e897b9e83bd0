"""A study: the runs that a comparison is made of, from flags or from a file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from trainer.comparison.combination import Combination, combine
from trainer.errors import UsageError

STRATEGIES = ("single", "sync", "sparknet", "deepspark", "easgd", "downpour", "diloco")
_FIELDS = {
    "net": str,
    "solver": str,
    "samples": int,
    "iterations": int,
    "seeds": int,
    "tests": int,
    "per_worker": bool,
}


@dataclass(frozen=True)
class Run:
    """One training run of a study.

    Attributes:
        combination: How.
        seed: Of fillers, Dropout and random transforms.
    """

    combination: Combination
    seed: int

    @property
    def name(self) -> str:
        """The run's folder, from the study's."""
        return f"{self.combination.name}/seed{self.seed}"


@final
@dataclass(frozen=True)
class Study:
    """What is run.

    Attributes:
        net, solver: Files, as `train` takes them; one of them may be None.
        combinations: Each is run with every seed.
        samples: Images of a run, of each worker with `per_worker`; None if `iterations` says it.
        iterations: The same in iterations; None for `samples`, or else the solver's `max_iter`.
        seeds: How many, from 1.
        tests: How often each run is tested, evenly.
        per_worker: Samples, iterations and learning rate count for each worker, as in the papers.
    """

    net: str | None
    solver: str | None
    combinations: tuple[Combination, ...]
    samples: int | None = None
    iterations: int | None = None
    seeds: int = 3
    tests: int = 10
    per_worker: bool = False

    def __post_init__(self) -> None:
        if self.samples is not None and self.iterations is not None:
            raise UsageError("give samples or iterations, not both")
        for name in ("samples", "iterations", "seeds", "tests"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}: expected 1 or more; received {value}")
        if not self.combinations:
            raise UsageError("a comparison needs at least one strategy")

    @property
    def runs(self) -> list[Run]:
        """All runs, every combination with the first seed before any with the second."""
        seeds = range(1, self.seeds + 1)
        return [Run(combination, seed) for seed in seeds for combination in self.combinations]


def read_study(path: Path) -> Study:
    """Read a study from a TOML file.

    Its keys are the attributes of `Study`; `workers` is a list of numbers, and each table
    `[[strategy]]` has a `name`, values or lists of values of the strategy's options, and perhaps
    `workers` of its own. A net or solver may lie beside it.

    Raises:
        UsageError: The file cannot be read, or says something that a study does not have.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: not a TOML file: {error}") from error
    try:
        return _study(content, path.parent)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _study(content: dict[str, Any], folder: Path) -> Study:
    workers = _numbers(content.pop("workers", [2]))
    tables = content.pop("strategy", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError("strategy: expected tables [[strategy]]")
    for name, value in content.items():
        if name not in _FIELDS:
            expected = ", ".join([*_FIELDS, "workers", "strategy"])
            raise UsageError(f"unknown key {name}; expected {expected}")
        if type(value) is not _FIELDS[name]:
            raise UsageError(f"{name}: expected {_FIELDS[name].__name__}; received {value!r}")
    combinations = [each for table in tables for each in _combinations(dict(table), workers)]
    unique = tuple(dict.fromkeys(combinations))
    for name in content.keys() & {"net", "solver"}:
        if (folder / content[name]).is_file():
            content[name] = str(folder / content[name])
    return Study(content.pop("net", None), content.pop("solver", None), unique, **content)


def _combinations(table: dict[str, Any], workers: list[int]) -> Iterable[Combination]:
    name = table.pop("name", None)
    if not isinstance(name, str):
        raise UsageError(f"[[strategy]]: expected a name; received {name!r}")
    workers = _numbers(table.pop("workers", workers))
    values = {key: value if isinstance(value, list) else [value] for key, value in table.items()}
    return combine([name], workers, _checked(name, values))


def _checked(strategy: str, values: Mapping[str, list[Any]]) -> Mapping[str, list[Any]]:
    for name, listed in values.items():
        if not listed or not all(isinstance(value, bool | int | float | str) for value in listed):
            raise UsageError(f"{strategy}: {name}: expected a value or a list; received {listed!r}")
    return values


def _numbers(value: Any) -> list[int]:
    listed = value if isinstance(value, list) else [value]
    if not listed or not all(type(number) is int and number > 0 for number in listed):
        raise UsageError(f"workers: expected numbers, 1 or more; received {value!r}")
    return listed
