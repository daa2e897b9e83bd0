"""Workers as the tasks of one Spark stage.

Synchronous workers are the tasks of a barrier stage, all or none; if one is lost, the run ends.
Asynchronous ones are the tasks of a plain stage: Spark starts a lost one again by itself.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import secrets
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, final

import torch
from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark import BarrierTaskContext, SparkContext, TaskContext
from pyspark.errors import PySparkException

from trainer.cluster.base import Cluster, Work
from trainer.cluster.gloo import joined
from trainer.cluster.gpus import assigned_device
from trainer.cluster.java_errors import first_line, java_message
from trainer.cluster.session import (
    close_context,
    open_context,
    told_of_java,
    wait_for_slots,
)
from trainer.end_with_parent import end_with_parent
from trainer.errors import LostWorkerError, TrainerError
from trainer.extensions import Extensions
from trainer.links import DriverLink, Group, Place
from trainer.parameter_server.address import Address, is_encrypted
from trainer.parameter_server.client import FlightGroup, FlightLink
from trainer.parameter_server.desk import Desk
from trainer.parameter_server.range_servers import range_servers
from trainer.parameter_server.ranged_link import RangedLink, Ranges
from trainer.parameter_server.service import serving
from trainer.plan import DistributedPlan
from trainer.task import WorkerTask

logger = logging.getLogger(__name__)

# The driver's own deadlines come first, with a better message.
_GRACE_S = 30.0
_MOST_ATTEMPTS = 10_000  # at the tasks of a stage, the newest of which are looked at

# In what Spark says of a process or a host that has gone, by Spark's version 4.
_SIGNS_OF_LOSS = (
    *("exited unexpectedly", "ExecutorLostFailure", "PeerLostError", "Connection reset"),
    *("Executor heartbeat timed out", "FetchFailed", "worker lost"),
)


class SparkCluster(Cluster):
    """Runs one worker per task of a Spark stage. A subclass says by `_run_stage` over what data.

    Args:
        plan: The run.
    """

    def __init__(self, plan: DistributedPlan) -> None:
        self._plan = plan
        self._context: SparkContext | None = None
        self._is_ours, self._submissions = False, 0
        self._group = f"torrefy {secrets.token_hex(4)}"  # runs of one process cancel only their own

    def __enter__(self) -> Self:
        self._context, self._is_ours = open_context(self._plan)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._context is not None and self._is_ours:
            close_context(self._context)

    def run(self, work: Work, tasks: Sequence[WorkerTask], desk: Desk, *, in_group: bool) -> None:
        """Run the tasks as one stage; see `Cluster.run`."""
        with told_of_java():
            self._run(work, tasks, desk, in_group=in_group)

    def _run(self, work: Work, tasks: Sequence[WorkerTask], desk: Desk, *, in_group: bool) -> None:
        context = self._entered
        host = _numeric(context.getConf().get("spark.driver.host") or "localhost")
        encrypted = is_encrypted(self._plan.encryption, host)
        wait_for_slots(context, self._plan)  # those of workers that were lost may have gone
        with (
            serving(desk, host, self._plan.port, encrypted=encrypted) as address,
            self._ranges(desk, host, encrypted) as ranges,
        ):
            self._submissions += 1
            words = _description(tasks, self._submissions)
            context.setJobGroup(self._group, words, interruptOnCancel=True)
            parcels = [
                Parcel(task.rank, task.plan.extensions, pickle.dumps(task)) for task in tasks
            ]
            try:
                self._run_stage(Job(work, address, ranges, in_group), parcels)
            except Py4JNetworkError:
                raise
            except (Py4JError, PySparkException) as error:
                logger.debug("Spark's own report:\n%s", error)
                kind = LostWorkerError if is_loss(error) else TrainerError
                raise kind(reason(error)) from error

    def _ranges(
        self, desk: Desk, host: str, encrypted: bool
    ) -> AbstractContextManager[Ranges | None]:
        """Have processes serve the centre, if the plan says so."""
        plan = self._plan
        first = plan.port and plan.port + 1
        waits = {"start_s": plan.start_timeout_s, "wait_s": plan.wait_timeout_s}
        return range_servers(desk.file, host, first, encrypted=encrypted, **waits)

    def _run_stage(self, job: Job, parcels: Sequence[Parcel]) -> None:
        """Run `job` on every parcel, and wait for the end of all."""
        data = self._entered.parallelize(parcels, len(parcels))
        if job.in_group:
            data.barrier().mapPartitions(job).collect()
        else:
            data.mapPartitions(job).collect()

    def end_worker(self, rank: int) -> None:
        """Have Spark kill a worker's task, which counts as no failure, and start it again."""
        try:
            for attempt in self._running(rank):
                self._entered._jsc.sc().killTaskAttempt(attempt, True, "it is silent")
        except (Py4JError, ConnectionError) as error:
            logger.warning("Spark cannot end the task of worker %d: %s", rank, first_line(error))

    def _running(self, rank: int) -> Iterator[int]:
        """Yield Spark's ids of the attempts at a worker's task, one that was never heard of too."""
        tracker, spark = self._entered.statusTracker(), self._entered._jsc.sc()
        for job in {*tracker.getJobIdsForGroup(self._group)} & {*tracker.getActiveJobsIds()}:
            info = tracker.getJobInfo(job)
            if info is None:  # it has ended since
                continue
            stage = max(info.stageIds)  # those before it bring the data
            tasks = spark.statusStore().taskList(stage, 0, _MOST_ATTEMPTS)
            for task in (tasks.apply(number) for number in range(tasks.size())):
                if task.index() == rank and task.status() == "RUNNING":
                    yield task.taskId()

    def cancel(self) -> None:
        """Have Spark kill the tasks."""
        try:
            self._entered.cancelJobGroup(self._group)
        except (Py4JError, ConnectionError) as error:  # then they end by themselves
            logger.debug("Spark cannot cancel the tasks: %s", first_line(error))

    @property
    def _entered(self) -> SparkContext:
        if self._context is None:
            raise TrainerError("the cluster has not been started")
        return self._context


@final
@dataclass(frozen=True)
class Parcel:
    """A task as it travels: what is in it may be of a class in one of the user's own modules."""

    rank: int
    extensions: Extensions
    pickled: bytes

    def open(self) -> WorkerTask:
        """Return the task, after importing the user's modules."""
        self.extensions.install()
        task: WorkerTask = pickle.loads(self.pickled)
        return task


@final
@dataclass(frozen=True)
class Job:
    """What each task of the stage runs, in a Python process of an executor."""

    work: Work
    address: Address
    ranges: Ranges | None
    in_group: bool

    def __call__(self, parcels: Iterable[Parcel]) -> Iterator[int]:
        """Run the one parcel there is, and yield its rank."""
        _end_with_daemon()
        (parcel,) = parcels
        yield self.run(self.opened(parcel))

    def opened(self, parcel: Parcel) -> WorkerTask:
        """Return the task in a parcel; the driver hears why if that fails, and does not retry."""
        try:
            return parcel.open()
        except Exception as error:  # whatever the user's modules raise
            with closing(FlightLink(self.address, parcel.rank, _GRACE_S)) as link:
                link.start(Place.here())
                words = f"{type(error).__name__}: {error}"
                link.fail(words, traceback.format_exc(), is_lost_peer=False)
            raise

    def run(self, task: WorkerTask) -> int:
        """Run a task that has arrived; returns its rank."""
        torch.set_num_threads(task.plan.threads)
        timeout_s = task.plan.wait_timeout_s
        with ExitStack() as stack:
            # A network that is cut may heal; a driver that is gone takes its executors with it.
            driver = FlightLink(self.address, task.rank, timeout_s + _GRACE_S, timeout_s)
            link: DriverLink = stack.enter_context(closing(driver))
            if self.ranges is not None:
                ranged = RangedLink(link, self.ranges, task.rank, timeout_s + _GRACE_S)
                link = stack.enter_context(closing(ranged))
            joining = self._joining(link, task) if self.in_group else nullcontext()
            device = assigned_device(task.plan.device, TaskContext.get())
            plan = replace(task.plan, device=device)
            self.work(replace(task, plan=plan), link, joining)
        return task.rank

    def _joining(self, link: DriverLink, task: WorkerTask) -> AbstractContextManager[Group]:
        """Return the group of a synchronous run: over gloo, or over what is encrypted."""
        if self.address.certificate is not None:
            return nullcontext(FlightGroup(link, task.plan.num_workers))
        return _joining(task.plan.wait_timeout_s)


def _end_with_daemon() -> None:
    """End this process with the one that it was forked from, even if it is stopped then.

    Spark ends Python's processes by way of pyspark's daemon, so that it would have lost this. A
    Java process, the parent if spark.python.use.daemon is false, would be taken to end with the
    thread that started this.
    """
    main = sys.modules["__main__"].__spec__
    # A daemon of the user's (spark.python.daemon.module) calls pyspark's.
    if "pyspark.daemon" in sys.modules or (main is not None and main.name == "pyspark.daemon"):
        end_with_parent(os.getpgrp())  # it leads the group of its children


def _description(tasks: Sequence[WorkerTask], submission: int) -> str:
    """Return what Spark's page of jobs shows of a run: which part of it this is."""
    plan, name = tasks[0].plan, tasks[0].net.param.name or "a net"
    part = f"iterations {plan.start_iteration} to {plan.max_iter}, {plan.rounds} rounds"
    again = f", submission {submission}" if submission > 1 else ""
    return f"torrefy: {name}, {plan.strategy} with {plan.num_workers} workers, {part}{again}"


def _joining(timeout_s: float) -> AbstractContextManager[Group]:
    """Return the group of the barrier stage that this process runs a task of."""
    context = BarrierTaskContext.get()
    rank, infos = context.partitionId(), context.getTaskInfos()
    host = _numeric(infos[rank].address.rpartition(":")[0])

    def publish(own: str) -> str:
        return context.allGather(own)[0]

    return joined(rank, len(infos), host, timeout_s, publish)


def _numeric(host: str) -> str:
    """Return the one address that `localhost`, by which Spark calls a local driver, stands for."""
    return "127.0.0.1" if host == "localhost" else host


def is_loss(error: Py4JError | PySparkException) -> bool:
    """Return whether a job has failed because a worker, an executor or a host is gone."""
    text = java_message(error)
    return any(sign in text for sign in _SIGNS_OF_LOSS)


def reason(error: Py4JError | PySparkException) -> str:
    """Return why a job failed, in a line: the worker's own exception, or what became of it."""
    text = java_message(error)
    rank = re.search(r"ResultTask\(\d+, (\d+)\)|[Tt]ask (\d+)(?:\.\d+)? in stage", text)
    worker = f"worker {rank[1] or rank[2]}" if rank else "a worker"
    if "No module named" in text and "'trainer'" in text:
        return f"{worker}: torrefy is not installed where Spark runs its Python"
    own = re.findall(r"^(?!org\.|java\.)[\w.]+(?:Error|Exception): .*$", text, re.MULTILINE)
    if own:
        return f"{worker}: {own[-1]}"
    if is_loss(error):
        return f"{worker} was lost: killed, or out of memory? Spark says: {first_line(error)}"
    return f"{worker}: {first_line(error)}"
