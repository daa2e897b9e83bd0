"""Several hosts on one machine: network namespaces, joined by a bridge in one more of them.

Nothing of it is seen outside of the namespaces, and nothing outside is reached from them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.spark_standalone import running_master, running_worker

_PREFIX = "torrefy"
_MASTER_PORT = 7077
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Host:
    """A namespace with one link to the others.

    Attributes:
        namespace: Its name.
        address: Of its side of the link.
        port: Of the bridge: the other side.
        switch: The namespace of the bridge.
    """

    namespace: str
    address: str
    port: str
    switch: str

    @property
    def prefix(self) -> list[str]:
        """Words before a command that run it on this host, which has a name of its own."""
        name = 'hostname "$0"; exec "$@"'
        return [*_inside(self.namespace), "unshare", "--uts", "sh", "-c", name, self.port]

    def cut(self) -> None:
        """Pull the cable."""
        _ip("-n", self.switch, "link", "set", self.port, "down")

    def heal(self) -> None:
        """Put it back."""
        _ip("-n", self.switch, "link", "set", self.port, "up")


@dataclass(frozen=True)
class SparkHosts:
    """A standalone Spark over hosts.

    Attributes:
        driver: Where the master is, and the driver goes.
        workers: A Spark worker of one core on each.
    """

    driver: Host
    workers: tuple[Host, ...]

    @property
    def master(self) -> str:
        """URL of the master."""
        return f"spark://{self.driver.address}:{_MASTER_PORT}"


def why_not() -> str | None:
    """Return what this machine lacks for hosts, None if nothing."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    missing = [name for name in ("ip", "unshare", "hostname") if shutil.which(name) is None]
    if missing:
        return f"needs network namespaces: no {', '.join(missing)} on the PATH"
    try:
        with hosts(1):
            return None
    except subprocess.CalledProcessError as error:
        return f"needs network namespaces: {error.stderr.strip()}"


@contextmanager
def hosts(count: int) -> Iterator[tuple[Host, ...]]:
    """Make hosts that reach each other; when the context ends, they end with all they run."""
    _remove_leftovers()
    own = f"{_PREFIX}-{os.getpid()}"
    switch = f"{own}-switch"
    made = tuple(
        Host(f"{own}-{number}", f"10.77.0.{number}", f"host{number}", switch)
        for number in range(1, count + 1)
    )
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for host in made:
            _connect(host)
        yield made
    finally:
        for namespace in (*(host.namespace for host in made), switch):
            _remove(namespace)


@contextmanager
def spark_hosts(folder: Path, workers: int = 2) -> Iterator[SparkHosts]:
    """Run a standalone Spark on hosts of its own; logs and work go to `folder`."""
    with hosts(workers + 1) as (driver, *rest), ExitStack() as stack:
        spark = SparkHosts(driver, tuple(rest))
        prefix = driver.prefix
        stack.enter_context(running_master(folder, driver.address, _MASTER_PORT, prefix))
        _wait_for_master(driver)
        for host in rest:
            stack.enter_context(running_worker(folder, host.address, spark.master, host.prefix))
        yield spark


def _connect(host: Host) -> None:
    _ip("netns", "add", host.namespace)
    _ip(
        *("-n", host.switch, "link", "add", host.port, "type", "veth"),
        *("peer", "name", "eth0", "netns", host.namespace),
    )
    _ip("-n", host.switch, "link", "set", host.port, "master", "bridge", "up")
    _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        _ip("-n", host.namespace, "link", "set", device, "up")


def _wait_for_master(driver: Host) -> None:
    place = (driver.address, _MASTER_PORT)
    code = f"import socket; socket.create_connection({place!r}, 5).close()"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        command = [*_inside(driver.namespace), sys.executable, "-c", code]
        if subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0:
            return
        time.sleep(0.5)
    raise TimeoutError(f"no Spark master listens on {driver.address}:{_MASTER_PORT}")


def _inside(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace]


def _ip(*words: str) -> str:
    command = ["ip", *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    return result.stdout


def _remove(namespace: str) -> None:
    """End all processes of a namespace, and remove it with its links; none there is well, too."""
    with suppress(subprocess.CalledProcessError):
        _end(_ip("netns", "pids", namespace).split())
        _ip("netns", "delete", namespace)


def _end(pids: Sequence[str]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def _remove_leftovers() -> None:
    """Remove what runs have left that were killed."""
    for line in _ip("netns", "list").splitlines():
        name = line.split()[0]
        prefix, _, rest = name.partition("-")
        pid = rest.partition("-")[0]
        if prefix == _PREFIX and pid.isdecimal() and not psutil.pid_exists(int(pid)):
            _remove(name)
