"""What a cluster is: it runs K workers at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from trainer.links import DriverLink, Group
from trainer.parameter_server.desk import Desk
from trainer.task import WorkerTask

Work = Callable[[WorkerTask, DriverLink, AbstractContextManager[Group | None]], None]


class Cluster(ABC):
    """Runs workers. A context manager: entering makes sure that all of them have a place.

    Attributes:
        may_lose_workers: They are processes, which can be killed.
    """

    may_lose_workers = True

    @abstractmethod
    def __enter__(self) -> Self:
        """Start what is needed.

        Raises:
            TrainerError: The workers cannot run at once; says why and what to change.
        """

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop what was started."""

    @abstractmethod
    def run(self, work: Work, tasks: Sequence[WorkerTask], desk: Desk, *, in_group: bool) -> None:
        """Run `work` once for each task, all at the same time, and wait for the end of all.

        Args:
            work: `run_worker`; importable where the workers run.
            tasks: One per rank, in order.
            desk: What the workers' driver links lead to.
            in_group: Connect the workers with each other too. Else a lost one may be started again.

        Raises:
            LostWorkerError: One was lost.
            TrainerError: One of them failed; its own words, if it had any, are at the desk.
        """

    @abstractmethod
    def end_worker(self, rank: int) -> None:
        """End an asynchronous worker that hangs; another is started for it."""

    @abstractmethod
    def cancel(self) -> None:
        """End a `run` in another thread soon."""
