"""The parts of what is known of a run: how it was set up, curves, tests, workers, events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from trainer.plotting.records import Record, number, printable

_TREND = 256  # values of a curve that are kept, at most


@final
@dataclass(frozen=True)
class Setup:
    """How a run was set up.

    Attributes:
        net: Its name.
        strategy: `single` for one process.
        num_workers: K.
        max_iter: Iterations of the run.
        batch: Images of one of them.
        per_worker: They count those of each worker, not of all together.
        device: PyTorch device.
        iteration: Where the run started, or went on.
    """

    net: str
    strategy: str
    num_workers: int
    max_iter: int
    batch: int
    per_worker: bool
    device: str
    iteration: int

    @classmethod
    def of(cls, record: Record) -> Setup:
        """Return what a record of kind `start` says."""
        return cls(
            net=printable(str(record.get("net", ""))),
            strategy=printable(str(record.get("strategy", ""))),
            num_workers=max(1, _whole(record, "workers")),
            max_iter=_whole(record, "max_iter"),
            batch=_whole(record, "batch"),
            per_worker=bool(record.get("per_worker")),
            device=printable(str(record.get("device", ""))),
            iteration=_whole(record, "iteration"),
        )

    @property
    def stride(self) -> int:
        """Iterations of the run that one iteration of a worker stands for."""
        return 1 if self.per_worker else self.num_workers


@final
class Trend:
    """A curve of bounded size: when it is full, neighbours are replaced by their mean."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._pending: list[float] = []
        self._each = 1

    @property
    def values(self) -> list[float]:
        """The values so far, the last ones perhaps as their mean."""
        if not self._pending:
            return self._values
        return [*self._values, sum(self._pending) / len(self._pending)]

    def add(self, value: float) -> None:
        """Add one to the right."""
        self._pending.append(value)
        if len(self._pending) < self._each:
            return
        self._values.append(sum(self._pending) / len(self._pending))
        self._pending = []
        if len(self._values) == _TREND:
            pairs = zip(self._values[::2], self._values[1::2], strict=True)
            self._values = [(first + second) / 2 for first, second in pairs]
            self._each *= 2


@final
@dataclass
class Score:
    """How the tests went, by one output of the test net.

    Attributes:
        name: The output: an accuracy if there is one.
        last: Of the last test.
        best: Of the best one.
        best_iteration: At which that was.
        trend: All of them.
    """

    name: str
    last: float
    best: float
    best_iteration: int
    trend: Trend = field(default_factory=Trend)

    def add(self, value: float, iteration: int) -> None:
        """Take in a test."""
        self.last = value
        self.trend.add(value)
        is_better = value < self.best if "loss" in self.name else value > self.best
        if is_better:
            self.best, self.best_iteration = value, iteration


@final
@dataclass
class WorkerState:
    """What is known of a worker.

    Attributes:
        rank: Which.
        iteration: That it has behind it.
        loss: Mean since its last exchange but one; None before the first.
        exchanges: That it made.
        compute_s, exchange_s: Seconds that it computed, and that it waited for exchanges.
        staleness: Sum over all exchanges.
        max_staleness: The greatest.
        heard_s: When its last exchange was, in seconds of the run; None before the first.
        is_dropped: Others do the rest of its share.
    """

    rank: int
    iteration: int
    loss: float | None = None
    exchanges: int = 0
    compute_s: float = 0.0
    exchange_s: float = 0.0
    staleness: float = 0.0
    max_staleness: int = 0
    heard_s: float | None = None
    is_dropped: bool = False

    def add(self, record: Record, seconds: float) -> None:
        """Take in an exchange."""
        self.exchanges, self.heard_s = self.exchanges + 1, seconds
        self.iteration = int(number(record.get("worker_iteration")) or self.iteration)
        self.loss = either(number(record.get("loss")), self.loss)
        self.compute_s += number(record.get("compute_s")) or 0.0
        self.exchange_s += number(record.get("exchange_s")) or 0.0
        staleness = int(number(record.get("staleness")) or 0)
        self.staleness += staleness
        self.max_staleness = max(self.max_staleness, staleness)


@final
@dataclass(frozen=True)
class Event:
    """Something that happened to a run.

    Attributes:
        seconds: When, in seconds of the run.
        text: What, in words.
    """

    seconds: float
    text: str


def either(value: float | None, before: float | None) -> float | None:
    """Return a value, or if there is none the one before."""
    return before if value is None else value


def _whole(record: Record, name: str) -> int:
    return int(number(record.get(name)) or 0)
