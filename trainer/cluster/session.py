"""Starting Spark, with the settings that workers need, and errors that say what is missing."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError

from trainer.errors import TrainerError
from trainer.plan import DistributedPlan

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_CONNECT_TIMEOUT_S = 10.0
_POLL_S = 0.5


def open_context(plan: DistributedPlan) -> tuple[SparkContext, bool]:
    """Start Spark, or join the context that this process has, and see that K workers have a place.

    Returns:
        The context, and whether it was started here.

    Raises:
        TrainerError: Spark cannot start, or cannot run all workers at once.
    """
    running: SparkContext | None = SparkContext._active_spark_context
    if running is None:
        context = _start(plan)
    elif plan.master in (None, running.master):
        context = running
    else:
        raise TrainerError(
            f"this process runs Spark on {running.master} already: stop it first, or leave out the "
            f"master {plan.master}"
        )
    try:
        _check_allocation(context)
        _wait_for_slots(context, plan)
    except TrainerError:
        if running is None:
            context.stop()
        raise
    return context, running is None


def _start(plan: DistributedPlan) -> SparkContext:
    master = spark_master(plan)
    is_local = master.startswith("local") or f"//{_LOOPBACK}:" in master or "//localhost:" in master
    java = _find_java()
    if is_local:
        os.environ.setdefault("SPARK_LOCAL_IP", _LOOPBACK)
    _check_host_name()
    _check_master(master)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    try:
        with _same_sigint():
            return SparkContext(conf=_settings(plan, master))
    except PySparkRuntimeError as error:
        raise TrainerError(
            f"Spark's Java process ended while it started; Spark 4 needs Java 17 or later, and "
            f"{java} is {_java_version(java)}. Its own words are above"
        ) from error
    except Py4JError as error:
        raise TrainerError(f"Spark cannot start on {master}: {first_line(error)}") from error


@contextmanager
def _same_sigint() -> Iterator[None]:
    """Undo what pyspark does to SIGINT: it would cancel the job, and the run decides that."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def spark_master(plan: DistributedPlan) -> str:
    """Return the master of a plan: local by default, and a local one with retries of tasks."""
    master = plan.master or f"local[{plan.num_workers * plan.threads}]"
    if master == "local":
        master = "local[1]"
    # local[N] never starts a lost task again; local[N,F] does, until it has failed F times.
    return re.sub(r"^local\[(\d+|\*)\]$", rf"local[\1,{plan.task_attempts}]", master)


def _settings(plan: DistributedPlan, master: str) -> SparkConf:
    conf = SparkConf().setMaster(master).setAppName("torrefy")
    values = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "WARN" if logger.isEnabledFor(logging.DEBUG) else "FATAL",
        "spark.task.cpus": str(plan.threads),
        "spark.task.maxFailures": str(plan.task_attempts),
        "spark.speculation": "false",
        "spark.barrier.sync.timeout": f"{int(plan.wait_timeout_s) + 1}s",
    }
    if master.startswith("spark://"):
        values["spark.cores.max"] = str(plan.num_workers * plan.threads)
    root = Path(__file__).resolve().parents[2]
    if root.name != "site-packages":  # a checkout: the executors need not have it installed
        values["spark.executorEnv.PYTHONPATH"] = str(root)
    return conf.setAll(list(values.items()))


def _find_java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(str(Path(home, "bin", "java")) if home else "java")
    if java is None:
        where = f"JAVA_HOME is {home}, which holds no bin/java" if home else "no java on the PATH"
        raise TrainerError(
            f"Spark needs Java 17 or later: {where}. Install it (Debian: openjdk-17-jre-headless) "
            "or set JAVA_HOME; with --workers 1 and no --master nothing needs it"
        )
    return java


def _java_version(java: str) -> str:
    try:
        result = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"one that cannot be started ({error})"
    return (result.stderr or result.stdout).partition("\n")[0] or "one that says no version"


def _check_host_name() -> None:
    """Refuse a machine whose own name leads nowhere: Java would end without a reason."""
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError as error:
        if "SPARK_LOCAL_IP" not in os.environ:
            raise TrainerError(
                f"this machine's name {name} has no address ({error.strerror}), and Spark needs "
                "one: set SPARK_LOCAL_IP to the address that the cluster reaches"
            ) from error


def _check_master(master: str) -> None:
    """Refuse a standalone master that does not answer; Spark would try for a minute."""
    if not master.startswith("spark://"):
        return
    reasons = []
    for place in master.removeprefix("spark://").split(","):
        host, _, port = place.rpartition(":")
        try:
            socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()
        except (OSError, ValueError) as error:
            reasons.append(f"{place}: {error}")
        else:
            return
    raise TrainerError(f"no Spark master answers at {master} ({'; '.join(reasons)})")


def _check_allocation(context: SparkContext) -> None:
    if context.getConf().get("spark.dynamicAllocation.enabled", "false") == "true":
        raise TrainerError(
            "all workers have to run at once, which Spark does not promise with dynamic "
            "allocation: set spark.dynamicAllocation.enabled to false"
        )


def _wait_for_slots(context: SparkContext, plan: DistributedPlan) -> None:
    """Wait until executors for all workers are there; those of `local` are at once."""
    spark: Any = context._jsc.sc()
    profile = spark.resourceProfileManager().defaultResourceProfile()
    is_local = re.match(r"local(\[|$)", str(context.master)) is not None  # not local-cluster[...]
    deadline = time.monotonic() + (0 if is_local else plan.start_timeout_s)
    while (slots := spark.maxNumConcurrentTasks(profile)) < plan.num_workers:
        if time.monotonic() >= deadline:
            waited = "" if is_local else f" after {plan.start_timeout_s:g} s"
            raise TrainerError(
                f"{plan.num_workers} workers of {plan.threads} core(s) each have to run at once; "
                f"Spark on {context.master} has room for {slots}{waited}: use --workers "
                f"{max(slots, 1)} or a master with {plan.num_workers * plan.threads} cores"
            )
        time.sleep(_POLL_S)


def first_line(error: Exception) -> str:
    """Return what a Java exception says, without its stack."""
    java: Any = getattr(error, "java_exception", None)
    text = str(java.getMessage() if java is not None else error)
    return text.partition("\n")[0]
