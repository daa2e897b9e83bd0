"""A real standalone Spark on this machine's loopback, from the pip package."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyspark

HOST = "127.0.0.1"
_DEPLOY = "org.apache.spark.deploy"


@dataclass(frozen=True)
class Standalone:
    """A running cluster.

    Attributes:
        master: URL of the master.
        workers: Process ids of the Spark workers.
    """

    master: str
    workers: tuple[int, ...]


@contextmanager
def standalone(folder: Path, workers: int = 2) -> Iterator[Standalone]:
    """Run a master and `workers` workers of one core each; logs and work go to `folder`.

    Raises:
        TimeoutError: The master does not come up.
    """
    port = _free_port()
    with ExitStack() as stack:
        process = stack.enter_context(running_master(folder, HOST, port))
        _wait_for_port(port, process)
        master = f"spark://{HOST}:{port}"
        started = [
            stack.enter_context(running_worker(folder, HOST, master)) for _ in range(workers)
        ]
        yield Standalone(master, tuple(worker.pid for worker in started))


def running_master(
    folder: Path, host: str, port: int, prefix: Sequence[str] = ()
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Run a master for the time of the context.

    Args:
        folder: For its log.
        host: Address that it listens on.
        port: Port there.
        prefix: Words before the command, such as those of `ip netns exec`.
    """
    arguments = ("--host", host, "--port", str(port), "--webui-port", "0")
    return _spark_class("master.Master", *arguments, folder=folder, host=host, prefix=prefix)


def running_worker(
    folder: Path, host: str, master: str, prefix: Sequence[str] = ()
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Run a worker of one core for the time of the context; see `running_master`."""
    place = ("--host", host, "--webui-port", "0")
    size = ("--cores", "1", "--memory", "1200M", "--work-dir", str(folder / "work"))
    arguments = (*place, *size, master)
    return _spark_class("worker.Worker", *arguments, folder=folder, host=host, prefix=prefix)


@contextmanager
def _spark_class(
    name: str, *arguments: str, folder: Path, host: str, prefix: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a class of Spark's for the time of the context."""
    home = Path(pyspark.__file__).parent
    command = [*prefix, str(home / "bin" / "spark-class"), f"{_DEPLOY}.{name}", *arguments]
    environment = os.environ | {"SPARK_LOCAL_IP": host, "SPARK_LOCAL_DIRS": str(folder / "local")}
    environment.pop("PYTHONPATH", None)  # else executors would find whatever this process does
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int, process: subprocess.Popen[bytes], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((HOST, port), timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"the Spark master does not listen on port {port}")
