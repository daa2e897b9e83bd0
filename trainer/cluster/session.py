"""Starting Spark, with the settings that workers need, and errors that say what is missing."""

from __future__ import annotations

import logging
import os
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

from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError

from trainer.cluster.java_errors import first_line
from trainer.cluster.packing import installed_modules
from trainer.cluster.probe import check_executors, check_imports
from trainer.cluster.settings import (
    check,
    complete,
    is_local,
    is_submitted,
    launch_settings,
    spark_master,
    submitted_master,
)
from trainer.cluster.shipping import ship
from trainer.errors import TrainerError
from trainer.parameter_server.address import is_encrypted
from trainer.plan import DistributedPlan

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_CONNECT_TIMEOUT_S = 10.0
_POLL_S = 0.5


def open_context(plan: DistributedPlan) -> tuple[SparkContext, bool]:
    """Start Spark, or join the context that this process has, and see that K workers have a place.

    On executors elsewhere their Python is looked at, and our code and the user's is sent to them.

    Returns:
        The context, and whether it was started here.

    Raises:
        TrainerError: Spark cannot start, cannot run all workers at once, or lacks what they need.
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
        with told_of_java():
            _prepare(context, plan)
    except TrainerError:
        if running is None:
            close_context(context)
        raise
    return context, running is None


def close_context(context: SparkContext) -> None:
    """Stop a context, if Spark's Java process is there or not."""
    try:
        context.stop()
    except ConnectionError:
        context.stop()  # which now does what needs no Java


@contextmanager
def told_of_java() -> Iterator[None]:
    """Say what has happened when a call of Spark's Java process finds that it has gone.

    Raises:
        TrainerError: It has.
    """
    try:
        yield
    except (Py4JNetworkError, ConnectionError) as error:
        raise TrainerError(
            "Spark's Java process beside the driver has ended: killed, or out of memory "
            "(spark.driver.memory)? Its own words, if it had any, are above; a run that has saved "
            "itself goes on with --resume"
        ) from error


def _prepare(context: SparkContext, plan: DistributedPlan) -> None:
    check(context.getConf(), plan)
    slots = wait_for_slots(context, plan)
    if is_local(str(context.master)):
        return
    _warn_of_plain_rpc(context.getConf(), plan)
    check_executors(context, slots, installed_modules(plan.extensions), plan.start_timeout_s)
    ship(context, plan.extensions)
    check_imports(context, slots, plan.extensions, plan.start_timeout_s)


def _start(plan: DistributedPlan) -> SparkContext:
    java = "java" if is_submitted() else _find_java()
    master = spark_master(plan, submitted_master())
    if is_local(master) or f"//{_LOOPBACK}:" in master or "//localhost:" in master:
        os.environ.setdefault("SPARK_LOCAL_IP", _LOOPBACK)
    _check_host_name()
    _check_master(master)
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


def _settings(plan: DistributedPlan, master: str) -> SparkConf:
    """Return what spark-submit, spark-defaults.conf and the plan say, and the rest of our own."""
    launch = SparkConf(loadDefaults=False).setAll(list(launch_settings(plan, master).items()))
    _choose_python(dict(plan.spark_conf).get("spark.pyspark.python"), master)
    SparkContext._ensure_initialized(conf=launch)
    conf = SparkConf()  # now there is a Java process, which has read the files of settings
    complete(conf, plan, master)
    check(conf, plan)
    return conf


def _choose_python(given: str | None, master: str) -> None:
    """Have executors take this Python, unless somebody says otherwise, or they have images."""
    if given or not master.startswith(("yarn", "k8s://")):
        os.environ.setdefault("PYSPARK_PYTHON", given or sys.executable)


def _warn_of_plain_rpc(conf: SparkConf, plan: DistributedPlan) -> None:
    host = conf.get("spark.driver.host") or "localhost"
    if is_encrypted(plan.encryption, host) and conf.get("spark.authenticate", "false") != "true":
        logger.warning(
            "The keys of this run's encryption travel to the workers with Spark's tasks, and "
            "spark.authenticate is off: set it and spark.network.crypto.enabled, or whoever reads "
            "Spark's own traffic can read the run's, too"
        )


@contextmanager
def _same_sigint() -> Iterator[None]:
    """Undo what pyspark does to SIGINT: it would cancel the job, and the run decides that."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


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


def wait_for_slots(context: SparkContext, plan: DistributedPlan) -> int:
    """Wait until executors for all workers are there; returns how many tasks run at once.

    Those of `local` are there at once.
    """
    spark: Any = context._jsc.sc()
    profile = spark.resourceProfileManager().defaultResourceProfile()
    is_at_once = is_local(str(context.master))
    deadline = time.monotonic() + (0 if is_at_once else plan.start_timeout_s)
    while (slots := spark.maxNumConcurrentTasks(profile)) < plan.num_workers:
        if time.monotonic() >= deadline:
            waited = "" if is_at_once else f" after {plan.start_timeout_s:g} s"
            raise TrainerError(
                f"{plan.num_workers} workers of {plan.threads} core(s) each have to run at once; "
                f"Spark on {context.master} has room for {slots}{waited}: use --workers "
                f"{max(slots, 1)} or a master with {plan.num_workers * plan.threads} cores"
            )
        time.sleep(_POLL_S)
    return int(slots)
