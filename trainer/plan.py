"""What a distributed run will do, decided before it starts."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from trainer.errors import UsageError
from trainer.extensions import Extensions
from trainer.strategies.base import Options

IN_PROCESS = "in-process"
SINGLE = "single"  # the strategy of one process, which has no plan
ENCRYPTION = ("auto", "on", "off")
EXCHANGE_DTYPES = ("float32", "float16", "bfloat16")
NO_CHECKPOINTS = "none"

_LEAST_SILENCE_S = 2.0


@dataclass(frozen=True)
class Milestones:
    """When the driver tests and takes snapshots, in iterations of the run.

    Workers stop to exchange, not to test, so a multiple counts when an exchange reaches or passes
    it.

    Attributes:
        test_interval: Iterations between tests; 0 for none.
        snapshot: Iterations between snapshots; 0 for none.
    """

    test_interval: int
    snapshot: int

    def is_test(self, before: int, after: int) -> bool:
        """Return whether a test is due after `before` and not after `after`."""
        return _passes(self.test_interval, before, after)

    def is_snapshot(self, before: int, after: int) -> bool:
        """Return whether a snapshot is due after `before` and not after `after`."""
        return _passes(self.snapshot, before, after)

    def is_any(self, before: int, after: int) -> bool:
        """Return whether anything is due after `before` and not after `after`."""
        return self.is_test(before, after) or self.is_snapshot(before, after)


def _passes(interval: int, before: int, after: int) -> bool:
    return interval > 0 and after // interval > before // interval


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a run is saved so that it can be resumed.

    Attributes:
        uri: A local folder, or a folder on any file system that `pyarrow.fs` opens.
        keep: The newest so many are kept, and the best.
        interval_s: Seconds from one to the next; 0 for every exchange of all workers; None for
            that in small nets, and for a minute in large ones.
    """

    uri: str
    keep: int = 2
    interval_s: float | None = None

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise UsageError(f"keep: expected 1 or more checkpoints; received {self.keep}")
        if self.interval_s is not None and not self.interval_s >= 0:
            raise UsageError(f"interval_s: expected 0 or more; received {self.interval_s}")


@dataclass(frozen=True)
class DistributedPlan:
    """A distributed run.

    By default `max_iter` counts the minibatches of all workers together, so that every mode sees
    equal samples, and the learning rate follows that count. With `per_worker` it counts those of
    each worker, and the learning rate follows the worker, as in the papers.

    Attributes:
        strategy: Name of a registered strategy.
        options: Its settings.
        num_workers: K.
        start_iteration: Where the run starts: 0, or the iteration of a snapshot.
        max_iter: Where it ends, counted as `per_worker` says.
        per_worker: Count iterations of each worker, not of all together.
        lr_per_worker: Have the learning rate follow each worker's own count, whatever max_iter
            counts.
        seed: Of dropout and data transforms; rank r draws its dropout from seed + r.
        data_dir: Where to look for databases that do not exist as named.
        device: PyTorch device of the workers. "cuda" gives rank r GPU r modulo the GPUs there.
        threads: Cores, and threads of PyTorch, of each worker.
        master: Spark master; None for `local[...]` with a core per thread; "in-process" for no
            Spark: the workers take turns in this process.
        port: Port of the driver's service, and `servers` after it; 0 for any free ones.
        start_timeout_s: Longest wait for Spark to offer a place to every worker.
        wait_timeout_s: Longest wait of one process for another after that.
        task_attempts: How often in a row a worker, or all workers of a synchronous run, may be lost
            without having got further before the run is given up.
        extensions: The user's own layers, which every worker loads.
        encryption: Whether workers and driver speak TLS: "on", "off", or "auto", on unless the
            driver listens on the loopback. With TLS synchronous workers average through the
            driver; without, over gloo, which has none.
        servers: Processes beside the driver that hold the centre, a range each; 0: the driver.
        exchange_dtype: What asynchronous workers and the centre send each other: "float32",
            "float16" or "bfloat16".
        overlap: Asynchronous workers go on while an exchange is under way.
        checkpoints: Where the run is saved so that it can be resumed; None for nowhere.
        straggler_s: A worker not heard of for so long is named in the log.
        replaces_stragglers: And its process is killed, and another started in its place.
        spark_conf: Settings of Spark by name; they come before torrefy's own.
        log_level: Workers' log records of this level and above reach the driver's log.
    """

    strategy: str
    options: Options
    num_workers: int
    max_iter: int
    start_iteration: int = 0
    per_worker: bool = False
    lr_per_worker: bool = False
    seed: int = 0
    data_dir: Path | None = None
    device: str = "cpu"
    threads: int = 1
    master: str | None = None
    port: int = 0
    start_timeout_s: float = 120.0
    wait_timeout_s: float = 1800.0
    task_attempts: int = 4
    extensions: Extensions = field(default_factory=Extensions)
    encryption: str = "auto"
    servers: int = 0
    exchange_dtype: str = "float32"
    overlap: bool = False
    checkpoints: Checkpoints | None = None
    straggler_s: float = 30.0
    replaces_stragglers: bool = False
    spark_conf: tuple[tuple[str, str], ...] = ()
    log_level: int = logging.WARNING

    def __post_init__(self) -> None:
        for name in ("num_workers", "threads", "task_attempts"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected 1 or more; received {getattr(self, name)}")
        if self.straggler_s < _LEAST_SILENCE_S:
            raise UsageError(
                f"straggler_s: workers report every second: expected {_LEAST_SILENCE_S:g} or more; "
                f"received {self.straggler_s:g}"
            )
        for name in ("start_timeout_s", "wait_timeout_s"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name}: expected more than 0; received {getattr(self, name)}")
        if not 0 <= self.port < 65536:
            raise UsageError(f"port: expected 0 to 65535; received {self.port}")
        if self.servers < 0:
            raise UsageError(f"servers: expected 0 or more; received {self.servers}")
        for name, choices in (("encryption", ENCRYPTION), ("exchange_dtype", EXCHANGE_DTYPES)):
            if getattr(self, name) not in choices:
                received = getattr(self, name)
                raise UsageError(f"{name}: expected {', '.join(choices)}; received {received}")
        self.options.check_workers(self.num_workers)

    @property
    def stride(self) -> int:
        """Iterations of the run that one iteration of a worker stands for."""
        return 1 if self.per_worker else self.num_workers

    @property
    def lr_stride(self) -> int:
        """Iterations that the learning rate moves on by with one of a worker."""
        return 1 if self.lr_per_worker else self.stride

    def share(self, rank: int, iteration: int) -> int:
        """Return the iterations that worker `rank` has done when the run is at `iteration`."""
        if self.per_worker:
            return iteration
        return iteration // self.num_workers + (rank < iteration % self.num_workers)

    def progress(self, worker_iterations: int) -> int:
        """Return the iteration of the run from the sum of the workers' iterations."""
        return worker_iterations // self.num_workers if self.per_worker else worker_iterations

    @property
    def worker_iterations(self) -> tuple[int, ...]:
        """Iterations that each worker will run."""
        return tuple(
            self.share(rank, self.max_iter) - self.share(rank, self.start_iteration)
            for rank in range(self.num_workers)
        )

    @property
    def rounds(self) -> int:
        """Exchanges of each worker, a last short phase included; as if no loss changed them."""
        rank = max(range(self.num_workers), key=lambda rank: self.worker_iterations[rank])
        iteration, rounds = self.share(rank, self.start_iteration), 0
        end = self.share(rank, self.max_iter)
        while iteration < end:
            iteration += self.options.interval(iteration)
            rounds += 1
        return rounds
