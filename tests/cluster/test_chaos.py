"""Runs whose processes are killed and stopped at random moments still end, and end well.

TORREFY_CHAOS_SEED repeats what happened to whom, if not when.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.spark_standalone import Standalone
from chaos import FREEZE, KILL, STOP, TOKEN, Act, Chaos, Pace, by_role, processes
from chaos_checks import PARTS, PAUSE, Belongings, Journal, TellTests, install_parts, wait_for_end
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import print_text
from solvers import Solver
from tiny_task import Outcome, enumerate_datums, make_plan, run_plan, tiny_net, tiny_param
from trainer.data.database import write_database
from trainer.extensions import Extensions
from trainer.plan import IN_PROCESS

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TRAIN = "import sys; from trainer.cli import train_main; sys.exit(train_main(sys.argv[1:]))"
SEED = int(os.environ.get("TORREFY_CHAOS_SEED", secrets.randbits(31)))
TEST_INTERVAL, MAX_ITER, BATCHES = 500, 4000, 50
SCORED = {"test_interval": TEST_INTERVAL, "test_iter": [BATCHES]}
DEADLINE_S = 400.0
PACE = Pace(gap_s=(0.2, 1.0), stop_s=(0.2, 3.0))
PAUSE_S = 0.02
WORKERS: dict[Act, float] = {
    (KILL, "worker"): 3,
    (STOP, "worker"): 4,
    (KILL, "executor"): 1.5,
    (STOP, "executor"): 2,
    (KILL, "daemon"): 0.5,
}
SERVERS: dict[Act, float] = {(KILL, "server"): 3, (STOP, "server"): 3}
DRIVER: dict[Act, float] = {(KILL, "driver"): 3, (STOP, "driver"): 2, (KILL, "java"): 1}


@dataclass(frozen=True)
class Run:
    """What is done to a run.

    Attributes:
        strategy: Its name.
        share: How many events.
        acts: Which.
        settings: Of the plan, and options of the strategy.
    """

    strategy: str
    share: int
    acts: Mapping[Act, float]
    settings: Mapping[str, Any] = field(default_factory=dict)


RUNS = {
    "sparknet": Run(
        "sparknet",
        15,
        WORKERS | {(FREEZE, "worker"): 1},
        {"sync_interval": 5, "replaces_stragglers": True, "straggler_s": 5.0},
    ),
    "sparknet, encrypted": Run("sparknet", 15, WORKERS, {"sync_interval": 5, "encryption": "on"}),
    "deepspark": Run(
        "deepspark",
        20,
        WORKERS | {(FREEZE, "worker"): 1},
        {"sync_interval": 2, "replaces_stragglers": True, "straggler_s": 5.0},
    ),
    "deepspark, 2 servers, encrypted": Run(
        "deepspark",
        20,
        WORKERS | SERVERS | {(FREEZE, "server"): 0.3},
        {"sync_interval": 2, "moving_rate": 0.3, "servers": 2, "encryption": "on"},
    ),
}
COUNTING = {
    "counting": Run("counting", 15, WORKERS, {"sync_interval": 1}),
    "counting, 2 servers, encrypted": Run(
        "counting", 20, WORKERS | SERVERS, {"sync_interval": 1, "servers": 2, "encryption": "on"}
    ),
}
WITH_DRIVER = "deepspark, 2 servers, driver"
# What has happened in all runs of this session, and how long each took.
HAPPENED: dict[str, tuple[Counter[str], float]] = {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with as much of the tiny task's data as a figure in percent needs."""
    random = np.random.default_rng(1701)
    for name, count in (("train_lmdb", 600), ("test_lmdb", 8 * BATCHES)):
        images = random.integers(0, 40, size=(count, 2, 3, 1), dtype=np.uint8)
        labels = random.integers(0, 4, size=count)
        for image, label in zip(images, labels, strict=True):
            image.reshape(-1)[label] += 150
        write_database(tmp_path / name, enumerate_datums(images, labels))
    return tmp_path


@pytest.fixture
def flag(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file there while chaos goes on, whose name marks all processes of a run."""
    (folder / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "temporary"))
    monkeypatch.setenv(TOKEN, str(folder / "chaos"))
    (folder / "chaos").write_text(str(PAUSE_S))
    return folder / "chaos"


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch) -> Extensions:
    return install_parts(monkeypatch)


def note(name: str, chaos: Chaos) -> None:
    """Keep what happened in a run, for the last test."""
    counts = Counter(" ".join(event.act) for event in chaos.events)
    HAPPENED[name] = counts, chaos.seconds


def run_in_chaos(
    name: str, run: Run, cluster: Standalone, folder: Path, flag: Path, **settings: Any
) -> tuple[Outcome, Journal]:
    """Run a plan while its processes are killed and stopped, and see what they leave."""
    before, journal = Belongings.now(), Journal()
    zeroed = settings.pop("zeroed", False)
    plan = make_plan(
        run.strategy,
        2,
        folder,
        max_iter=MAX_ITER,
        master=cluster.master,
        spark_conf=((f"spark.executorEnv.{TOKEN}", str(flag)),),
        **{"task_attempts": 50, "straggler_s": 3.0, "wait_timeout_s": 60.0} | run.settings,
        extensions=settings.pop("extensions"),
    )
    find = partial(processes, str(flag))

    def prepare(solver: Solver) -> None:
        solver.callbacks.append(TellTests(journal))
        if zeroed:
            solver.net.flat.data.zero_()

    chaos = Chaos(
        lambda: by_role(find()),
        *(run.acts, run.share, SEED, PACE),
        *(lambda: journal.reached, DEADLINE_S),
    )

    print(f"{name}: TORREFY_CHAOS_SEED={SEED}")
    with chaos:
        outcome = run_plan(
            plan,
            folder,
            PAUSE,
            poll=partial(chaos.poll, flag),
            change=prepare,
            recorder=journal,
            **settings,
        )
    note(name, chaos)
    wait_for_end(find)
    assert Belongings.now() == before
    assert not [path for path in chaos.shared if path.exists()]
    assert len(chaos.events) == run.share
    assert outcome.result.iteration == MAX_ITER
    assert not outcome.result.is_stopped_early
    assert outcome.parameters.isfinite().all()
    journal.check()
    return outcome, journal


def undisturbed(run: Run, folder: Path) -> Outcome:
    """Run the same without chaos, and without processes."""
    elsewhere = "servers", "encryption", "replaces_stragglers", "straggler_s"
    own = {key: value for key, value in run.settings.items() if key not in elsewhere}
    plan = make_plan(run.strategy, 2, folder, max_iter=MAX_ITER, master=IN_PROCESS, **own)
    return run_plan(plan, folder, PAUSE, **SCORED)


@pytest.mark.parametrize("name", RUNS)
def test_run_in_chaos_learns_as_one_that_is_left_alone(
    cluster: Standalone, folder: Path, flag: Path, extensions: Extensions, name: str
) -> None:
    run = RUNS[name]
    outcome, journal = run_in_chaos(
        name, run, cluster, folder, flag, extensions=extensions, **SCORED
    )
    reached = {iteration // TEST_INTERVAL for iteration, _ in journal.tests}
    assert reached == set(range(MAX_ITER // TEST_INTERVAL + 1))
    alone = undisturbed(run, folder)
    accuracy = alone.recorder.tests[-1][1]
    assert accuracy > 0.9
    assert abs(journal.tests[-1][1] - accuracy) < 0.03
    if run.strategy == "sparknet":  # rounds that were lost are done again
        torch.testing.assert_close(outcome.parameters, alone.parameters, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", COUNTING)
def test_each_push_counts_once_in_chaos(
    cluster: Standalone,
    folder: Path,
    flag: Path,
    extensions: Extensions,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    more = {"zeroed": True, "base_lr": 1e-12, "test_iter": []}
    outcome, _ = run_in_chaos(
        name, COUNTING[name], cluster, folder, flag, extensions=extensions, **more
    )
    workers = outcome.result.workers
    assert [worker.iterations for worker in workers] == [MAX_ITER // 2] * 2
    counts = outcome.parameters.unique().tolist()
    if "servers" not in COUNTING[name].settings:
        assert counts == [MAX_ITER]
        return
    # A push that a lost worker had brought to a range, and not counted, is made again; one that a
    # lost server was at is lost, or done in part.
    lost_workers = sum(worker.attempts - 1 for worker in workers)
    lost_servers = caplog.text.count("another one takes over")
    assert MAX_ITER - lost_servers <= counts[0] <= counts[-1] <= MAX_ITER + lost_workers


class Launcher:
    """Starts the program `train`, and again from its checkpoints; reads what it has written.

    Args:
        folder: Working directory.
        words: Of the first command line.
    """

    def __init__(self, folder: Path, words: Sequence[str]) -> None:
        self._folder, self._words, self._out = folder, words, folder / "out"
        self.lives: list[int] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Start a run, or go on with it."""
        self.lives.append(len(self.metrics()))
        words = ["--resume", "out/tiny_checkpoints"] if self.lives[-1] else self._words
        with (self._folder / "output").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-c", TRAIN, *words],
                cwd=self._folder,
                env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": tempfile.gettempdir()},
                stdout=output,
                stderr=output,
            )

    def output(self) -> str:
        """Return what all have said."""
        return (self._folder / "output").read_text()

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of the metrics file, none before there is something to go on from."""
        if not list(self._out.glob("tiny_checkpoints/iter_*/manifest.json")):
            return []
        lines = (self._out / "tiny_metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def iteration(self) -> int:
        """Return how far the run is."""
        found = [line["iteration"] for line in self.metrics() if line["kind"] == "exchange"]
        return found[-1] if found else 0


@pytest.mark.usefixtures("extensions")
def test_run_whose_driver_dies_too_goes_on(cluster: Standalone, folder: Path, flag: Path) -> None:
    (folder / "tiny.prototxt").write_text(print_text(tiny_net(PAUSE).param))
    param = tiny_param(Path("tiny"), net="tiny.prototxt", max_iter=MAX_ITER, **SCORED)
    (folder / "tiny_solver.prototxt").write_text(print_text(param))
    words = [
        *("--solver", "tiny_solver.prototxt", "--out", "out", "--seed", "5", "--servers", "2"),
        *("--workers", "2", "--master", cluster.master, "--layer-module", str(PARTS)),
        *("--strategy", "deepspark", "--sync-interval", "2", "--moving-rate", "0.3"),
        *("--max-failures", "50", "--wait-timeout", "60", "--checkpoint-interval", "0.5"),
        *("--conf", f"spark.executorEnv.{TOKEN}={flag}", "--data", str(folder)),
    ]
    find, launcher = partial(processes, str(flag)), Launcher(folder, words)
    acts = WORKERS | SERVERS | DRIVER
    chaos = Chaos(lambda: by_role(find()), acts, 20, SEED, PACE, launcher.iteration, 2 * DEADLINE_S)
    print(f"{WITH_DRIVER}: TORREFY_CHAOS_SEED={SEED}")
    with chaos:
        while status := wait_for_driver(launcher.start(), chaos, flag):
            ends = Counter(event.act for event in chaos.events)
            assert status == -9 or ends[KILL, "java"], launcher.output()
            assert ends[KILL, "driver"] + ends[KILL, "java"] >= len(launcher.lives)
            wait_for_end(find)
    note(WITH_DRIVER, chaos)
    wait_for_end(find)
    assert not [path for path in chaos.shared if path.exists()]
    assert len(chaos.events) == 20
    # Spark's own are its own.
    assert f'File "{ROOT}/trainer' not in launcher.output(), launcher.output()
    check_lives(launcher)
    run = Run("deepspark", 0, {}, {"sync_interval": 2, "moving_rate": 0.3})
    accuracy = undisturbed(run, folder).recorder.tests[-1][1]
    tests = [line for line in launcher.metrics() if line["kind"] == "test"]
    assert abs(tests[-1]["accuracy"] - accuracy) < 0.03
    model = caffe_pb2.NetParameter()
    model.ParseFromString((folder / f"out/tiny_iter_{MAX_ITER}.caffemodel").read_bytes())
    assert all(np.isfinite(blob.data).all() for layer in model.layer for blob in layer.blobs)


def wait_for_driver(process: subprocess.Popen[bytes], chaos: Chaos, flag: Path) -> int:
    """Return the status with which a driver ends."""
    while process.poll() is None:
        if chaos.is_over:
            flag.unlink(missing_ok=True)
        try:
            chaos.check_deadline()
        except AssertionError:
            process.kill()
            process.wait(60)
            raise
        time.sleep(0.1)
    return process.returncode


def check_lives(launcher: Launcher) -> None:
    """See that in each life of a driver nobody has gone back."""
    lines = launcher.metrics()
    for start, end in zip(launcher.lives, [*launcher.lives[1:], len(lines)], strict=True):
        for rank in range(2):
            own = [
                line["worker_iteration"]
                for line in lines[start:end]
                if line["kind"] == "exchange" and line["rank"] == rank
            ]
            assert own == sorted(set(own)), own
    assert [line["iteration"] for line in lines if line["kind"] == "test"][-1] == MAX_ITER


def test_there_was_chaos() -> None:
    if not {*RUNS, *COUNTING, WITH_DRIVER} <= set(HAPPENED):
        pytest.skip("not all runs have run")
    for name, (counts, seconds) in HAPPENED.items():
        print(f"{name}: {counts.total()} events in {seconds:.0f} s: {dict(counts)}")
    assert sum(counts.total() for counts, _ in HAPPENED.values()) >= 100
