"""Workers as the tasks of one Spark stage.

Synchronous workers are the tasks of a barrier stage, all or none; if one is lost, the run ends.
Asynchronous ones are the tasks of a plain stage: Spark starts a lost one again by itself.
"""

from __future__ import annotations

import logging
import pickle
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, final

import torch
from py4j.protocol import Py4JError
from pyspark import BarrierTaskContext, SparkContext
from pyspark.errors import PySparkException

from trainer.cluster.base import Cluster, Work
from trainer.cluster.gloo import joined
from trainer.cluster.session import first_line, open_context
from trainer.errors import TrainerError
from trainer.extensions import Extensions
from trainer.links import Group
from trainer.parameter_server.client import FlightLink
from trainer.parameter_server.desk import Desk
from trainer.parameter_server.flight_server import Address
from trainer.parameter_server.service import serving
from trainer.plan import DistributedPlan
from trainer.worker import WorkerTask

logger = logging.getLogger(__name__)

# The driver's own deadlines come first, with a better message.
_GRACE_S = 30.0


class SparkCluster(Cluster):
    """Runs one worker per task of a Spark stage. A subclass says by `_run_stage` over what data.

    Args:
        plan: The run.
    """

    def __init__(self, plan: DistributedPlan) -> None:
        self._plan = plan
        self._context: SparkContext | None = None
        self._is_ours = False
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
            self._context.stop()

    def run(self, work: Work, tasks: Sequence[WorkerTask], desk: Desk, *, in_group: bool) -> None:
        """Run the tasks as one stage; see `Cluster.run`."""
        context = self._entered
        host = _numeric(context.getConf().get("spark.driver.host") or "localhost")
        with serving(desk, host, self._plan.port) as address:
            context.setJobGroup(self._group, "training", interruptOnCancel=True)
            parcels = [Parcel(task.plan.extensions, pickle.dumps(task)) for task in tasks]
            try:
                self._run_stage(Job(work, address, in_group), parcels)
            except (Py4JError, PySparkException) as error:
                logger.debug("Spark's own report:\n%s", error)
                raise TrainerError(reason(error)) from error

    def _run_stage(self, job: Job, parcels: Sequence[Parcel]) -> None:
        """Run `job` on every parcel, and wait for the end of all."""
        data = self._entered.parallelize(parcels, len(parcels))
        if job.in_group:
            data.barrier().mapPartitions(job).collect()
        else:
            data.mapPartitions(job).collect()

    def cancel(self) -> None:
        """Have Spark kill the tasks."""
        self._entered.cancelJobGroup(self._group)

    @property
    def _entered(self) -> SparkContext:
        if self._context is None:
            raise TrainerError("the cluster has not been started")
        return self._context


@final
@dataclass(frozen=True)
class Parcel:
    """A task as it travels: what is in it may be of a class in one of the user's own modules."""

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
    in_group: bool

    def __call__(self, parcels: Iterable[Parcel]) -> Iterator[int]:
        """Run the one parcel there is, and yield its rank."""
        (parcel,) = parcels
        yield self.run(parcel.open())

    def run(self, task: WorkerTask) -> int:
        """Run a task that has arrived; returns its rank."""
        torch.set_num_threads(task.plan.threads)
        timeout_s = task.plan.wait_timeout_s
        with closing(FlightLink(self.address, task.rank, timeout_s + _GRACE_S)) as link:
            joining = _joining(timeout_s) if self.in_group else nullcontext()
            self.work(task, link, joining)
        return task.rank


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


def reason(error: Py4JError | PySparkException) -> str:
    """Return why a job failed, in a line: the worker's own exception, or what became of it."""
    java: Any = getattr(error, "java_exception", None)
    text = str(java.getMessage() if java is not None else error)
    rank = re.search(r"ResultTask\(\d+, (\d+)\)|[Tt]ask (\d+)(?:\.\d+)? in stage", text)
    worker = f"worker {rank[1] or rank[2]}" if rank else "a worker"
    if "No module named" in text and "'trainer'" in text:
        return f"{worker}: torrefy is not installed where Spark runs its Python"
    own = re.findall(r"^(?!org\.|java\.)[\w.]+(?:Error|Exception): .*$", text, re.MULTILINE)
    if own:
        return f"{worker}: {own[-1]}"
    if "exited unexpectedly" in text or "ExecutorLostFailure" in text:
        return f"{worker} was lost: killed, or out of memory? Spark says: {first_line(error)}"
    return f"{worker}: {first_line(error)}"
