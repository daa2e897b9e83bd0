"""Which Spark a plan means, and the settings that its workers need there."""

from __future__ import annotations

import logging
import math
import os
import re

from pyspark import SparkConf, SparkContext

from trainer.cluster.packing import PACKAGE_ROOT
from trainer.errors import TrainerError
from trainer.plan import DistributedPlan

logger = logging.getLogger(__name__)

# The driver counts losses itself, and gives up when a worker gets no further; Spark would count
# all of a run's, however long it is.
_TASK_FAILURES = 1000
# A stopped executor is found after the first, looked for as often as the second says; Spark's own
# values are 120 s and 60 s.
_SILENCE = {"spark.network.timeout": "50s", "spark.network.timeoutInterval": "10s"}
# Managers whose number of executors is a setting, 2 unless it is set.
_COUNTED = ("yarn", "k8s://")


def is_submitted() -> bool:
    """Return whether spark-submit has started this process, and so has chosen the master."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def submitted_master() -> str | None:
    """Return the master that spark-submit was given; None if it has not started this process."""
    if not is_submitted():
        return None
    SparkContext._ensure_initialized()  # to read what spark-submit knows
    return SparkConf().get("spark.master")


def is_local(master: str) -> bool:
    """Return whether tasks run on this machine alone, in children of this process's JVM."""
    return re.match(r"local(\[|$)", master) is not None  # not local-cluster[...]


def spark_master(plan: DistributedPlan, given: str | None = None) -> str:
    """Return the master of a plan; a local one with retries of tasks.

    Args:
        plan: The run.
        given: The master that spark-submit was given.

    Raises:
        TrainerError: The plan has another one.
    """
    if given and plan.master not in (None, given):
        raise TrainerError(
            f"spark-submit was given the master {given}, and the run {plan.master}: leave out one"
        )
    master = given or plan.master or f"local[{plan.num_workers * plan.threads}]"
    if master == "local":
        master = "local[1]"
    # local[N] never starts a lost task again; local[N,F] does, until it has failed F times.
    return re.sub(r"^local\[(\d+|\*)\]$", rf"local[\1,{_TASK_FAILURES}]", master)


def launch_settings(plan: DistributedPlan, master: str) -> dict[str, str]:
    """Return what Spark's Java process has to know when it starts."""
    quiet = {
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "WARN" if logger.isEnabledFor(logging.DEBUG) else "FATAL",
    }
    return {"spark.master": master, "spark.app.name": "torrefy", **quiet, **dict(plan.spark_conf)}


def complete(conf: SparkConf, plan: DistributedPlan, master: str) -> None:
    """Add to `conf` what the workers need and nobody has set."""
    for name, value in plan.spark_conf:
        conf.set(name, value)
    conf.setMaster(master)
    cores = plan.num_workers * plan.threads
    values = {
        "spark.app.name": "torrefy",
        "spark.task.cpus": str(plan.threads),
        "spark.task.maxFailures": str(_TASK_FAILURES),
        "spark.speculation": "false",
        "spark.barrier.sync.timeout": f"{int(plan.wait_timeout_s) + 1}s",
        **_SILENCE,
    }
    if is_local(master):
        values["spark.ui.enabled"] = "false"
        if PACKAGE_ROOT.name != "site-packages":  # a checkout
            values["spark.executorEnv.PYTHONPATH"] = str(PACKAGE_ROOT)
    elif master.startswith("spark://"):
        values["spark.cores.max"] = str(cores)
    elif master.startswith(_COUNTED):
        own = conf.get("spark.executor.cores") or str(plan.threads)
        values["spark.executor.cores"] = own
        values["spark.executor.instances"] = str(math.ceil(cores / int(own)))
    for name, value in values.items():
        conf.setIfMissing(name, value)


def check(conf: SparkConf, plan: DistributedPlan) -> None:
    """Refuse settings with which the workers cannot run.

    Raises:
        TrainerError: Says which, and what to set.
    """
    if conf.get("spark.dynamicAllocation.enabled", "false") == "true":
        raise TrainerError(
            "all workers have to run at once, which Spark does not promise with dynamic "
            "allocation: set spark.dynamicAllocation.enabled to false"
        )
    if conf.get("spark.excludeOnFailure.enabled", "false") == "true":
        raise TrainerError(
            "a lost worker is replaced, perhaps in the place where it was, which Spark does not "
            "offer again with its exclusion of failed executors: set "
            "spark.excludeOnFailure.enabled to false"
        )
    cpus = conf.get("spark.task.cpus") or "1"
    if not cpus.isdecimal() or int(cpus) < plan.threads:
        raise TrainerError(
            f"each worker uses {plan.threads} threads, and spark.task.cpus gives it {cpus} core(s):"
            f" set it to {plan.threads}, or lower the threads"
        )
