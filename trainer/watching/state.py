"""What is known of a run that is watched, from its records alone."""

from __future__ import annotations

from collections import deque
from typing import final

from trainer.plan import SINGLE
from trainer.plotting.records import Record, number, printable
from trainer.watching.parts import Event, Score, Setup, Trend, WorkerState, either

_JITTER_S = 0.1  # by which records of one process may lie behind each other
_RECENT_S = 60.0  # speed is that of the last minute
_LEAST_STEP_S = 0.5  # between two moments that speed is measured by
_SMOOTHED = 5  # losses of each worker in the mean that is shown
_EVENTS = 5
_FRAME = ("kind", "iteration", "samples", "seconds", "net")  # of a record of a test


@final
class RunState:
    """A run as of its last record.

    Seconds are those that its processes have run, one after the other where it was resumed.

    Attributes:
        setup: How it was set up; None if its file does not say, as older ones do not.
        iteration: Where it is.
        seconds: When the last record was written; 0 before the first.
        is_empty: There is no record yet.
        has_begun: It has left its start behind, and trains.
        is_over: It has ended, or was stopped.
        lr: Learning rate; None before the first record of it.
        losses: Smoothed losses of the train net.
        score: How its tests went; None before the first.
        workers: By rank.
        events: The last ones.
    """

    def __init__(self) -> None:
        self.setup: Setup | None = None
        self.iteration, self.seconds = 0, 0.0
        self.is_empty, self.has_begun, self.is_over = True, False, False
        self.lr: float | None = None
        self.losses = Trend()
        self.score: Score | None = None
        self.workers: dict[int, WorkerState] = {}
        self.events: deque[Event] = deque(maxlen=_EVENTS)
        self._earlier_s = self._last_s = 0.0  # of earlier processes; of this one
        self._recent_losses: deque[float] = deque(maxlen=_SMOOTHED)
        self._moments: deque[tuple[float, int]] = deque()  # seconds, and the iteration then
        self._batch = 0.0

    def add(self, record: Record) -> None:
        """Take in the next record of the metrics file; one of an unknown kind is passed over."""
        self.is_empty = False
        self._count_seconds(record)
        kind = record["kind"]
        if kind == "start":
            self._start(record)
        elif kind == "event":
            self._add_event(record)
        elif kind in ("train", "test", "exchange"):
            self.has_begun = self.has_begun or kind != "test"
            self._note_values(kind, record)
            self._note_batch(record)
            self._advance(self._reached(kind, record))

    @property
    def loss(self) -> float | None:
        """The smoothed loss of the train net; None before the first."""
        losses = self._recent_losses
        return sum(losses) / len(losses) if losses else None

    @property
    def max_iter(self) -> int:
        """Where the run ends; 0 if that is not known."""
        return 0 if self.setup is None else self.setup.max_iter

    @property
    def iterations_per_s(self) -> float | None:
        """Speed of the last minute, tests included; None before it can be told."""
        if len(self._moments) < 2:
            return None
        (start, before), (end, after) = self._moments[0], self._moments[-1]
        return (after - before) / (end - start) if end > start and after > before else None

    @property
    def images_per_s(self) -> float | None:
        """The same in images of all workers."""
        speed = self.iterations_per_s
        return speed * self._batch if speed is not None and self._batch else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds from the last record to the end at this speed; None if that cannot be told."""
        speed = self.iterations_per_s
        if speed is None or not self.max_iter:
            return None
        return max(0, self.max_iter - self.iteration) / speed

    def _count_seconds(self, record: Record) -> None:
        seconds = record["seconds"]
        if record["kind"] == "start" or seconds < self._last_s - _JITTER_S:
            self._earlier_s += self._last_s
            self._last_s = 0.0
            self._go_back(int(record["iteration"]))
        self._last_s = max(self._last_s, seconds)
        self.seconds = self._earlier_s + self._last_s

    def _start(self, record: Record) -> None:
        """Begin, or go on."""
        self.has_begun = self.is_over = False
        self.setup = setup = Setup.of(record)
        self._batch = setup.batch
        ranks = range(setup.num_workers if setup.strategy != SINGLE else 0)
        self.workers = {rank: WorkerState(rank, 0) for rank in ranks}
        self._recent_losses = deque(self._recent_losses, _SMOOTHED * setup.num_workers)
        self._go_back(setup.iteration)
        if setup.iteration:
            self._tell(f"goes on from iteration {setup.iteration:,}")

    def _go_back(self, iteration: int) -> None:
        """Count from an iteration at which the run goes on."""
        self.iteration, self.is_over = iteration, False
        self._moments.clear()
        if self.setup is not None:
            for worker in self.workers.values():
                worker.iteration = iteration // self.setup.stride

    def _note_values(self, kind: str, record: Record) -> None:
        if kind == "test":
            self._note_test(record)
            return
        if kind == "exchange":
            rank = int(number(record.get("rank")) or 0)
            worker = self.workers.setdefault(rank, WorkerState(rank, 0))
            worker.add(record, self.seconds)
        self.lr = either(number(record.get("lr")), self.lr)
        loss = number(record.get("loss"))
        if loss is not None:
            self._recent_losses.append(loss)
            self.losses.add(sum(self._recent_losses) / len(self._recent_losses))

    def _note_test(self, record: Record) -> None:
        """Take in the output that is shown, of the first test net."""
        name = self.score.name if self.score else _main_output(record)
        value = number(record.get(name)) if name and not record.get("net") else None
        if name is None or value is None:
            return
        iteration = int(record["iteration"])
        if self.score is None:
            self.score = Score(name, value, value, iteration)
        self.score.add(value, iteration)

    def _note_batch(self, record: Record) -> None:
        samples, iteration = number(record.get("samples")), record["iteration"]
        if self.setup is None and samples and iteration:
            self._batch = samples / iteration

    def _reached(self, kind: str, record: Record) -> int:
        """Return the iteration of the run that a record tells of."""
        if kind == "exchange" and self.setup is not None:
            total = sum(worker.iteration for worker in self.workers.values())
            return total * self.setup.stride // self.setup.num_workers
        return int(record["iteration"])

    def _advance(self, iteration: int) -> None:
        """Note where the run is, and when."""
        self.iteration = max(self.iteration, iteration)
        if not self.has_begun:  # a test before the first iteration
            return
        moments, now = self._moments, (self.seconds, self.iteration)
        if len(moments) > 1 and self.seconds - moments[-2][0] < _LEAST_STEP_S:
            moments[-1] = now
        else:
            moments.append(now)
        while len(moments) > 2 and moments[1][0] < self.seconds - _RECENT_S:
            moments.popleft()

    def _add_event(self, record: Record) -> None:
        what = record.get("event")
        if what == "begin":
            self.has_begun = True
            self._moments.clear()
            self._advance(self.iteration)
        elif what == "end":
            self.is_over, self.iteration = True, int(record["iteration"])
            is_early = self.iteration < self.max_iter
            self._tell(f"{'stopped' if is_early else 'ended'} at iteration {self.iteration:,}")
        elif what == "lost":
            resumed_at = int(number(record.get("resumed_at")) or 0)
            self._go_back(resumed_at)
            message = printable(" ".join(str(record.get("message", "")).split()))
            self._tell(f"lost: {message.rstrip('.')}. All go on from iteration {resumed_at:,}")
        elif what in ("straggler", "dropped"):
            self._add_event_of_worker(what, record)

    def _add_event_of_worker(self, what: str, record: Record) -> None:
        rank, host = int(number(record.get("rank")) or 0), printable(str(record.get("host", "?")))
        if what == "dropped":
            self.workers.setdefault(rank, WorkerState(rank, 0)).is_dropped = True
            self._tell(f"dropped: worker {rank} on {host}; the others do its share")
        else:
            silent_s = number(record.get("silent_s")) or 0.0
            self._tell(f"straggler: no word from worker {rank} on {host} for {silent_s:.0f} s")

    def _tell(self, text: str) -> None:
        self.events.append(Event(self.seconds, text))


def _main_output(record: Record) -> str | None:
    """Return the output of the test net that tells most: an accuracy, else a loss, else any."""
    names = [name for name in record if name not in _FRAME]
    for word in ("accuracy", "loss", ""):
        for name in names:
            if word in name:
                return name
    return None
