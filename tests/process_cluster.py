"""Workers as processes over the real service, which start in a moment and are started again."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Sequence
from contextlib import closing, nullcontext, suppress
from multiprocessing.context import ForkServerProcess
from typing import Any, Self

import psutil
import torch

from trainer.cluster.base import Cluster, Work
from trainer.errors import LostWorkerError, TrainerError
from trainer.links import DriverLink
from trainer.parameter_server.address import Address
from trainer.parameter_server.client import FlightGroup, FlightLink
from trainer.parameter_server.desk import Desk
from trainer.parameter_server.range_servers import range_servers
from trainer.parameter_server.ranged_link import RangedLink, Ranges
from trainer.parameter_server.service import serving
from trainer.plan import DistributedPlan
from trainer.task import WorkerTask

_HOST = "127.0.0.1"
_TICK_S = 0.01
_TIMEOUT_S = 60.0


class ProcessCluster(Cluster):
    """Runs every worker in a process that is forked from one where all is imported.

    Args:
        plan: The run.
    """

    def __init__(self, plan: DistributedPlan) -> None:
        self._plan, self._context = plan, multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["process_cluster", "trainer.worker"])
        self._processes: dict[int, ForkServerProcess] = {}
        self._is_cancelled = threading.Event()

    @property
    def workers(self) -> list[list[psutil.Process]]:
        """The processes that run now."""
        found = []
        for process in list(self._processes.values()):
            with suppress(psutil.NoSuchProcess):
                found.append([psutil.Process(process.pid)])
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end_all()

    def run(self, work: Work, tasks: Sequence[WorkerTask], desk: Desk, *, in_group: bool) -> None:
        self._is_cancelled.clear()
        encrypted = self._plan.encryption == "on"
        waits = {"start_s": _TIMEOUT_S, "wait_s": _TIMEOUT_S}
        with (
            serving(desk, _HOST, encrypted=encrypted) as address,
            range_servers(desk.file, _HOST, encrypted=encrypted, **waits) as ranges,
        ):
            todo = {task.rank: task for task in tasks}
            for task in tasks:
                self._start(work, task, address, ranges, in_group)
            try:
                while todo and not self._is_cancelled.wait(_TICK_S):
                    for rank, task in list(todo.items()):
                        code = self._processes[rank].exitcode
                        if code == 0:
                            del todo[rank]
                        elif code is not None and in_group:
                            raise LostWorkerError(f"worker {rank} ended with {code}")
                        elif code is not None:
                            self._start(work, task, address, ranges, in_group)
            finally:
                self._end_all()
        if todo:
            raise TrainerError("cancelled")

    def _start(self, work: Work, task: WorkerTask, *more: Any) -> None:
        parcel = pickle.dumps((dict(os.environ), work, task, *more))
        process = self._context.Process(target=_play, args=(parcel,), daemon=True)
        process.start()
        self._processes[task.rank] = process

    def _end_all(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.join(_TIMEOUT_S)

    def end_worker(self, rank: int) -> None:
        self._processes[rank].kill()

    def cancel(self) -> None:
        self._is_cancelled.set()


def _play(parcel: bytes) -> None:
    environment, work, task, address, ranges, in_group = pickle.loads(parcel)
    os.environ.update(environment)  # the process that forks may be older
    torch.set_num_threads(1)
    with closing(_link(address, ranges, task.rank)) as link:
        group = FlightGroup(link, task.plan.num_workers) if in_group else None
        work(task, link, nullcontext(group))


def _link(address: Address, ranges: Ranges | None, rank: int) -> Any:
    driver = FlightLink(address, rank, _TIMEOUT_S)
    link: DriverLink = driver
    return link if ranges is None else RangedLink(link, ranges, rank, _TIMEOUT_S)
