"""A real standalone Spark on loopback: one master, two workers of one core each."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyspark
import pytest

from tiny_task import write_data

HOST = "127.0.0.1"
DEPLOY = "org.apache.spark.deploy"


@dataclass(frozen=True)
class Standalone:
    """A running cluster: its master's URL and the process ids of its workers."""

    master: str
    workers: tuple[int, ...]

    def python_workers(self, since: float) -> list[psutil.Process]:
        """Return the processes started `since` then that run tasks: forks of executors' daemons."""
        children = [psutil.Process(pid).children(recursive=True) for pid in self.workers]
        return [p for own in children for p in own if _runs_tasks(p, since)]


def _runs_tasks(process: psutil.Process, since: float) -> bool:
    try:
        family = (process, process.parent())
        is_forked = all(p is not None and "pyspark.daemon" in p.cmdline() for p in family)
        return is_forked and process.create_time() > since
    except psutil.NoSuchProcess:  # it has just ended
        return False


@contextmanager
def spark_class(name: str, *arguments: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a class of Spark's for the time of the context."""
    home = Path(pyspark.__file__).parent
    command = [str(home / "bin" / "spark-class"), f"{DEPLOY}.{name}", *arguments]
    environment = os.environ | {"SPARK_LOCAL_IP": HOST, "SPARK_LOCAL_DIRS": str(folder / "local")}
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((HOST, port), timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"the Spark master does not listen on port {port}")


@pytest.fixture(scope="session")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    folder = tmp_path_factory.mktemp("standalone")
    port = free_port()
    master = f"spark://{HOST}:{port}"
    place = ("--host", HOST, "--webui-port", "0")
    with ExitStack() as stack:
        process = stack.enter_context(
            spark_class("master.Master", *place, "--port", str(port), folder=folder)
        )
        wait_for_port(port, process)
        size = ("--cores", "1", "--memory", "1200M", "--work-dir", str(folder / "work"))
        workers = [
            stack.enter_context(spark_class("worker.Worker", *place, *size, master, folder=folder))
            for _ in range(2)
        ]
        yield Standalone(master, tuple(worker.pid for worker in workers))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the tiny task's data."""
    write_data(tmp_path)
    return tmp_path
