"""Signals to the processes of a run at random moments, and a look at what they have left."""

import faulthandler
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from solvers import Action

# Variable in the environment of every process of a run, and of no other. It names a file that is
# there as long as chaos goes on; see `chaos_parts`, which only a run imports.
TOKEN = "TORREFY_CHAOS"
# What may happen to whom.
KILL, STOP, FREEZE = "kill", "stop", "freeze"  # a stop ends after a while, a freeze by a kill
Act = tuple[str, str]

Groups = dict[str, list[list[psutil.Process]]]

_TICK_S = 0.02


@dataclass(frozen=True)
class Pace:
    """How fast things happen.

    Attributes:
        gap_s: Least and most seconds from one to the next.
        stop_s: Least and most seconds of a stop.
        recovery: So many iterations after a loss the run is thought to have recovered.
        patience: Until then no more than so many things happen, at random.
    """

    gap_s: tuple[float, float]
    stop_s: tuple[float, float]
    recovery: int = 20
    patience: int = 2


@dataclass(frozen=True)
class Event:
    """What was done.

    Attributes:
        at_s: Seconds since the chaos began.
        act: What, and to whom.
        pids: The processes.
        seconds: Of a stop.
        iteration: Of the run, as far as it was known.
    """

    at_s: float
    act: Act
    pids: tuple[int, ...]
    seconds: float
    iteration: int

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        what, whom = self.act
        pids = ", ".join(map(str, self.pids))
        return f"{self.at_s:6.1f} s, iteration {self.iteration}: {what} {whom} {pids}{lasting}"


def processes(value: str) -> list[psutil.Process]:
    """Return the processes that were started with this value of `TOKEN`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            is_dead = process.status() == psutil.STATUS_ZOMBIE
            if not is_dead and process.environ().get(TOKEN) == value:
                found.append(process)
    return found


def own_servers() -> list[psutil.Process]:
    """Return the children of this process that serve ranges of a centre."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has just ended
            if _role(child) == "server":
                found.append(child)
    return found


def by_role(found: list[psutil.Process]) -> Groups:
    """Return the processes of a run by what they do, in groups that only make sense together.

    Spark keeps Python processes of earlier tasks: the workers of an executor are one group.
    """
    roles: Groups = {}
    workers: dict[int, list[psutil.Process]] = {}
    for process in found:
        with suppress(psutil.Error):
            role = _role(process)
            if role == "worker":
                workers.setdefault(process.ppid(), []).append(process)
            elif role is not None:
                roles.setdefault(role, []).append([process])
    return roles | ({"worker": list(workers.values())} if workers else {})


def _role(process: psutil.Process) -> str | None:
    words = process.cmdline()
    for word, role in (
        ("org.apache.spark.executor.CoarseGrainedExecutorBackend", "executor"),
        ("org.apache.spark.deploy.SparkSubmit", "java"),
        ("trainer.parameter_server.range_process", "server"),
    ):
        if word in words:
            return role
    if "pyspark.daemon" in words:
        parent = process.parent()
        if parent is not None and parent.name() == "java":
            return "daemon"
        # One whose daemon is gone ends when it has imported; frozen before that, it could not.
        is_bound = parent is not None and "pyspark.daemon" in parent.cmdline()
        return "worker" if is_bound else None
    return "driver" if any("train_main" in word for word in words) else None


class Chaos:
    """A context in which, until enough has happened, something happens every now and then.

    Args:
        find: Returns the processes of the run by role, in groups to which things happen at once.
        acts: What happens, each at least once, and how likely it is after that.
        share: How many events are enough.
        seed: Of what happens when.
        pace: How fast.
        progress: Returns the iteration of the run.
        deadline_s: The run has to end by then.

    Attributes:
        events: What has happened.
        shared: Files in shared memory that the drivers of the run have had.
        is_over: Enough has happened, and nobody is stopped any more.
        seconds: That the context lasted.
    """

    def __init__(
        self,
        find: Callable[[], Groups],
        acts: Mapping[Act, float],
        share: int,
        seed: int,
        pace: Pace,
        progress: Callable[[], int],
        deadline_s: float,
    ) -> None:
        self._find, self._acts, self._share, self._pace = find, acts, share, pace
        self._random, self._progress = random.Random(seed), progress
        self._started = time.monotonic()
        self._deadline = self._started + deadline_s
        self._stopped: list[tuple[float, list[psutil.Process]]] = []
        self._frozen: set[int] = set()
        self._new = self._random.sample(sorted(acts), len(acts))
        self._lost_at, self._patience = -pace.recovery, pace.patience
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos", daemon=True)
        self.events: list[Event] = []
        self.shared: set[Path] = set()
        self.is_over, self.seconds = False, 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self.seconds = time.monotonic() - self._started
        print(f"{len(self.events)} events", *self.events, sep="\n")

    def poll(self, flag: Path) -> Action:
        """Be polled by a run: end it in time, and let it go on in peace when chaos is over."""
        self.check_deadline()
        if self.is_over:
            flag.unlink(missing_ok=True)
        return Action.NONE

    def check_deadline(self) -> None:
        """Raise an error that says what every process and thread does, if the time is over."""
        if time.monotonic() < self._deadline:
            return
        print(*self.events, sep="\n")
        for role, groups in self._find().items():
            for process in [each for group in groups for each in group]:
                with suppress(psutil.Error):
                    print(role, process.pid, process.status(), process.cpu_times())
        with tempfile.TemporaryFile("w+") as stacks:
            faulthandler.dump_traceback(stacks, all_threads=True)
            stacks.seek(0)
            print(stacks.read())
        raise AssertionError(f"the run did not end in {self._deadline - self._started:g} s")

    def _run(self) -> None:
        try:
            while len(self.events) < self._share and not self._pause(self._gap_s):
                self._act()
            while self._stopped and not self._pause(_TICK_S):
                pass
        finally:
            for _, stopped in self._stopped:
                _send(stopped, signal.SIGCONT)
            self.is_over = True

    def _pause(self, seconds: float) -> bool:
        """Wait; wake up those whose time has come. Return whether all is over."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._ended.is_set():
            self._ended.wait(min(left, _TICK_S))
            now = time.monotonic()
            for _, stopped in [each for each in self._stopped if each[0] <= now]:
                _send(stopped, signal.SIGCONT)
            self._stopped = [each for each in self._stopped if each[0] > now]
        return self._ended.is_set()

    @property
    def _gap_s(self) -> float:
        return self._random.uniform(*self._pace.gap_s)

    def _act(self) -> None:
        """Do one thing to somebody, if it is time and there is anybody to do it to."""
        iteration = self._progress()
        is_recovered = iteration >= self._lost_at + self._pace.recovery
        if iteration <= 0 or not (is_recovered or self._is_impatient()):
            return
        roles = self._find()
        self.shared |= _shared_files(roles.get("driver", []))
        acts = [act for act in self._acts if roles.get(act[1])]
        if not acts:
            return
        (act,) = self._random.choices(acts, [self._acts[act] for act in acts])
        act = next((new for new in self._new if new in acts), act)
        group = [p for p in self._random.choice(roles[act[1]]) if p.pid not in self._frozen]
        seconds = self._random.uniform(*self._pace.stop_s) if act[0] == STOP else 0.0
        hit = _send(group, signal.SIGKILL if act[0] == KILL else signal.SIGSTOP)
        if not hit:
            return
        self._new = [new for new in self._new if new != act]
        now = time.monotonic()
        self.events.append(Event(now - self._started, act, hit, seconds, iteration))
        if act[0] == STOP:
            self._stopped.append((now + seconds, group))
            return
        if act[0] == FREEZE:
            self._frozen.update(hit)
        if act[1] != "server":  # which does not hold up the run for long
            self._lost_at = iteration
            self._patience = self._pace.patience if is_recovered else self._patience

    def _is_impatient(self) -> bool:
        """Return whether something happens though the run has not recovered from the last loss."""
        if self._patience <= 0 or self._random.random() > 0.1:
            return False
        self._patience -= 1
        return True


def _send(group: list[psutil.Process], number: signal.Signals) -> tuple[int, ...]:
    """Send a signal to those that are still there, and return who got it."""
    hit = []
    for process in group:
        with suppress(psutil.Error):
            process.send_signal(number)  # which makes sure that it is the same process
            hit.append(process.pid)
    return tuple(hit)


def _shared_files(drivers: list[list[psutil.Process]]) -> set[Path]:
    """Return the files in shared memory that this process and other drivers have open."""
    links = set()
    for pid in ["self", *(process.pid for group in drivers for process in group)]:
        with suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    links.add(descriptor.readlink())
    return {path for path in links if path.parent == Path("/dev/shm")}
