"""Workers as threads over the real service: they can be frozen, lost, and started again."""

import threading
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from typing import Any, Self

from trainer.cluster.base import Cluster, Work
from trainer.errors import LostWorkerError, TrainerError
from trainer.links import Control, Place, Record
from trainer.parameter_server.client import FlightGroup, FlightLink
from trainer.parameter_server.desk import Desk
from trainer.parameter_server.service import serving
from trainer.task import WorkerTask


class FrozenLink:
    """A link over which nothing comes any more once its worker is frozen."""

    def __init__(self, link: FlightLink, thaw: threading.Event) -> None:
        self._link, self._thaw = link, thaw
        self.is_frozen = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._link, name)
        return self._guarded(method) if callable(method) else method

    def report(self, records: Sequence[Record]) -> Control:
        return self._guarded(self._link.report)(records)

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.is_frozen:
                assert self._thaw.wait(60), "frozen for too long"
                raise TrainerError("killed while frozen")
            return method(*args, **kwargs)

        return call


class ThreadCluster(Cluster):
    """Runs every worker in a thread of its own.

    Args:
        freezes: Asked by rank and attempt after every exchange of a worker whether it freezes now.
        replaces: Whether `end_worker` starts another one, as Spark does.
    """

    def __init__(self, freezes: Callable[[int, int, int], bool], *, replaces: bool = True) -> None:
        self._freezes, self._replaces = freezes, replaces
        self._start: Callable[[WorkerTask], None] = lambda task: None
        self._tasks: dict[int, WorkerTask] = {}
        self._thaw = threading.Event()
        self._ended: list[Exception] = []
        self._done: set[int] = set()
        self._is_cancelled = threading.Event()
        self.ended_workers: list[int] = []
        self.submissions = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._thaw.set()

    def run(self, work: Work, tasks: Sequence[WorkerTask], desk: Desk, *, in_group: bool) -> None:
        self.submissions += 1
        self._thaw, self._is_cancelled = threading.Event(), threading.Event()
        self._tasks = {task.rank: task for task in tasks}
        self._done, self._ended = set(), []
        changed = threading.Condition()
        threads: list[threading.Thread] = []
        with serving(desk, "127.0.0.1") as address:

            def play(task: WorkerTask) -> None:
                with closing(FlightLink(address, task.rank, 30)) as flight:
                    link = FrozenLink(flight, self._thaw)
                    group = FlightGroup(link, len(tasks)) if in_group else None
                    watched = _Watched(link, self._freezes, task.rank)
                    try:
                        work(task, watched, nullcontext(group and _WatchedGroup(group, watched)))
                        with changed:
                            self._done.add(task.rank)
                            changed.notify_all()
                    except Exception as error:
                        with changed:
                            self._ended.append(error)
                            changed.notify_all()

            def start(task: WorkerTask) -> None:
                thread = threading.Thread(target=play, args=(task,), daemon=True)
                threads.append(thread)
                thread.start()

            self._start = start
            for task in tasks:
                start(task)
            with changed:
                while len(self._done) < len(tasks):
                    if self._is_cancelled.is_set():
                        break
                    if in_group and self._ended:
                        break
                    changed.wait(0.05)
            self._thaw.set()
            desk.close()
            for thread in threads:
                thread.join(30)
                assert not thread.is_alive()
        if len(self._done) < len(tasks):
            raise LostWorkerError("a worker was lost")

    def end_worker(self, rank: int) -> None:
        self.ended_workers.append(rank)
        if self._replaces:
            self._start(self._tasks[rank])

    def cancel(self) -> None:
        self._is_cancelled.set()


class _Watched:
    """Counts the exchanges of an attempt, and freezes its link when it is time."""

    def __init__(
        self, link: FrozenLink, freezes: Callable[[int, int, int], bool], rank: int
    ) -> None:
        self._link, self._freezes, self._rank = link, freezes, rank
        self._attempt = self._exchanges = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def start(self, place: Place) -> Any:
        start = self._link.start(place)
        self._attempt = start.attempt
        return start

    def exchange(self, *args: Any, **kwargs: Any) -> Any:
        answer = self._link.exchange(*args, **kwargs)
        self.count()
        return answer

    def count(self) -> None:
        self._exchanges += 1
        if self._freezes(self._rank, self._attempt, self._exchanges):
            self._link.is_frozen = True


class _WatchedGroup:
    """A group each of whose averagings counts."""

    def __init__(self, group: FlightGroup, watched: _Watched) -> None:
        self._group, self._watched = group, watched
        self.size = group.size

    @property
    def traffic(self) -> Any:
        return self._group.traffic

    def mean_(self, tensor: Any) -> None:
        self._group.mean_(tensor)
        self._watched.count()
