"""The processes that serve the ranges of a centre, seen from the driver that keeps them alive."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from typing import final

from trainer.errors import TrainerError
from trainer.parameter_server.address import make_endpoint
from trainer.parameter_server.center_file import CenterFile
from trainer.parameter_server.range_job import READY, RangeJob
from trainer.parameter_server.range_service import RangeClient
from trainer.parameter_server.ranged_link import Ranges

logger = logging.getLogger(__name__)

_PROCESS = "trainer.parameter_server.range_process"
_POLL_S = 0.05
_PING_EVERY_S = 1.0
_PAUSE_S = 1.0  # between attempts to start what does not start
_END_S = 10.0  # the kernel takes less to end a process that is killed


@contextmanager
def range_servers(
    file: CenterFile | None,
    host: str,
    port: int = 0,
    *,
    encrypted: bool,
    start_s: float,
    wait_s: float,
    answer_s: float = 10.0,
) -> Iterator[Ranges | None]:
    """Have every range of a centre served by a process of its own while the context lasts.

    One that ends, or does not answer, is named in the log and replaced. The values and the books
    are in the file, and the port stays the same, so a client has only to try again.

    Args:
        file: Where the centre is; None, as for one that workers share, gives None.
        host: Address of this machine that workers reach.
        port: The first of N ports; 0 for any free ones.
        encrypted: Speak TLS, with a certificate made for these services.
        start_s: Longest wait for a process to serve.
        wait_s: Longest wait of one exchange for another.
        answer_s: A process that does not answer for so long is replaced.

    Raises:
        TrainerError: A process cannot serve; says why.
    """
    if file is None or not file.servers:
        yield None
        return
    common = make_endpoint(host, port, encrypted=encrypted)
    with ExitStack() as stack:
        servers, addresses = [], []
        for number in range(file.servers):
            free = stack.enter_context(_reserved(common.address.host, port and port + number))
            addresses.append(replace(common.address, port=free))
            endpoint = replace(common, address=addresses[number])
            job = RangeJob(file, number, endpoint, wait_s)
            servers.append(stack.enter_context(closing(_Server(job, start_s, answer_s))))
        for server in servers:
            server.wait()
        is_bounded = file.settings.max_staleness is not None
        yield Ranges(tuple(addresses), tuple(file.ranges), is_bounded)


@contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """Keep a port from everybody but our servers, which may listen on it one after the other.

    A socket that is bound and does not listen leaves it to those that ask for SO_REUSEADDR.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[
            0
        ]
        holder = socket.socket(family, kind, protocol)
    except OSError as error:
        raise TrainerError(f"{host} is no address of this machine: {error}") from error
    with holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(place)
        except OSError as error:
            raise TrainerError(
                f"no server of the centre can listen on {host}:{port} ({error.strerror}): choose "
                "another port, or 0 for any free one"
            ) from error
        yield int(holder.getsockname()[1])


class _KilledError(TrainerError):
    """A process was ended by a signal."""


@final
class _Server:
    """One range's process, and the thread that starts it and replaces it.

    The kernel ends a process with the thread that has started it, so this thread lives as long.
    """

    def __init__(self, job: RangeJob, start_s: float, answer_s: float) -> None:
        self._job, self._start_s, self._answer_s = job, start_s, answer_s
        self._name = f"the server of range {job.number} of the centre"
        self._is_closing, self._has_tried = threading.Event(), threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when the process serves.

        Raises:
            TrainerError: It does not.
        """
        self._has_tried.wait()  # which has a deadline
        if self._error is not None:
            raise TrainerError(f"{self._name}: {self._error}") from self._error

    def close(self) -> None:
        """End the process."""
        self._is_closing.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            process: subprocess.Popen[str] | None = self._start_first()
        except Exception as error:  # whatever it is, the caller of `wait` has to see it
            self._error = error
            return
        finally:
            self._has_tried.set()
        while process is not None:
            reason = self._watch(process)
            self._end(process)
            if reason is None:
                return
            logger.warning(
                "%s, process %d, %s: another one takes over what it had",
                *(self._name.capitalize(), process.pid, reason),
            )
            process = self._replace()

    def _start_first(self) -> subprocess.Popen[str]:
        """Start a process, and again if it is killed before it serves."""
        deadline = time.monotonic() + self._start_s
        while True:
            try:
                return self._start()
            except _KilledError as error:
                if time.monotonic() > deadline or self._is_closing.wait(_PAUSE_S):
                    raise
                logger.warning("%s does not start: %s", self._name.capitalize(), error)

    def _replace(self) -> subprocess.Popen[str] | None:
        """Start a process, and again until it serves; None if that is not wanted any more."""
        while not self._is_closing.is_set():
            try:
                process = self._start()
            except (TrainerError, OSError) as error:
                logger.warning("%s does not start: %s", self._name.capitalize(), error)
                self._is_closing.wait(_PAUSE_S)
            else:
                logger.info("%s is back as process %d", self._name.capitalize(), process.pid)
                return process
        return None

    def _start(self) -> subprocess.Popen[str]:
        paths = [path for path in sys.path if path]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", _PROCESS, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            process_group=0,  # Ctrl-C is for the driver, which may want to save first
        )
        try:
            self._await_ready(process)
        except BaseException:
            self._end(process)
            raise
        return process

    def _await_ready(self, process: subprocess.Popen[str]) -> None:
        given, said = process.stdin, process.stdout
        if given is None or said is None:
            raise TrainerError("it has no pipes")
        given.write(self._job.to_json() + "\n")
        given.flush()
        deadline = time.monotonic() + self._start_s
        while not select.select([said], [], [], _POLL_S)[0]:
            if self._is_closing.is_set():
                raise TrainerError("not wanted any more")
            if time.monotonic() > deadline:
                raise TrainerError(f"it did not start in {self._start_s:g} s: the machine is busy?")
        report = said.readline().strip()
        if not report:
            code = process.wait(_END_S)
            kind = _KilledError if code < 0 else TrainerError
            raise kind(f"it ended with {_how(code)}")
        if report != READY:
            raise TrainerError(report)

    def _watch(self, process: subprocess.Popen[str]) -> str | None:
        """Return why a process has to be replaced; None if the run is over."""
        address, number = self._job.endpoint.address, self._job.number
        with closing(RangeClient(address, number, self._answer_s, patience_s=0)) as client:
            asked = time.monotonic()
            while not self._is_closing.wait(_POLL_S):
                if process.poll() is not None:
                    return f"has ended with {_how(process.returncode)}"
                if time.monotonic() - asked >= _PING_EVERY_S:
                    try:
                        client.ping()
                    except TrainerError as error:
                        return f"does not answer ({error})"
                    asked = time.monotonic()
        return None

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _how(code: int) -> str:
    """Say how a process has ended."""
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"status {code}"
