"""Running a study: each run in a process of its own, once; what it gave is kept with it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from prototxt_parser.atomic import atomic_write
from prototxt_parser.proto.caffe_pb2 import SolverParameter
from prototxt_parser.text import print_text
from solvers.settings import train_choice
from trainer.comparison.load import LoadMeter
from trainer.comparison.outcomes import Row
from trainer.comparison.results import measurements
from trainer.comparison.study import Run, Study
from trainer.errors import DIVERGES, DataError, UsageError
from trainer.machine import machine
from trainer.plan import NO_CHECKPOINTS
from trainer.plotting.records import read_run
from trainer.recipe import Recipe, read_recipe

# A run ends with the process that waits for it, even if that has ended before.
_TRAIN = """
import sys
from trainer.end_with_parent import end_with_parent
end_with_parent(int(sys.argv[1]))
from trainer.cli import train_main
sys.exit(train_main(sys.argv[2:]))
"""
_SOLVER, _IDENTITY, _RESULT, _OUTPUT = "solver.prototxt", "study.json", "result.json", "output.txt"
_SAMPLE_S = 0.5
_NO_CHECKPOINTS = ("--checkpoints", NO_CHECKPOINTS, "--checkpoint-interval", "60")
_DISPLAYS = 100  # of a run in one process; workers tell their losses by themselves
_END_S = 30.0  # that a run which is interrupted has to stop Spark


@final
@dataclass(frozen=True)
class Place:
    """Where a study runs.

    Attributes:
        folder: For all it writes.
        flags: Of `train`, for every run, such as where the data are.
        master: Of workers; None for `train`'s own.
    """

    folder: Path
    flags: tuple[str, ...] = ()
    master: str | None = None


@contextmanager
def opened(study: Study, place: Place) -> Iterator[int]:
    """Have a study's folder to oneself, with the solver file that all runs share.

    Yields:
        Iterations of each run.

    Raises:
        UsageError: The folder cannot be written, is in use, or has runs of another study.
        PrototxtError: The net or solver is missing or wrong.
    """
    recipe = read_recipe(study.net, study.solver, None)
    param = _shared_solver(study, recipe)
    solver, net = print_text(param), train_choice(param, recipe.net).definition.param
    identity = {"net": print_text(net), "solver": solver, "per_worker": study.per_worker}
    with _locked(place.folder):
        _check_identity(place.folder / _IDENTITY, identity)
        with atomic_write(place.folder / _SOLVER) as file:
            file.write(solver.encode())
        yield param.max_iter


def _shared_solver(study: Study, recipe: Recipe) -> SolverParameter:
    """Return the recipe's solver with the study's length and tests, and without snapshots."""
    param, batch = recipe.param, recipe.batch_size
    if not param.test_iter:
        raise UsageError(f"{recipe.solver_path}: expected tests, by test_iter; found none")
    if study.samples is not None:
        if batch == 0:
            raise UsageError("samples: the net has no data layer to count them; give iterations")
        param.max_iter = max(1, round(study.samples / batch))
    elif study.iterations is not None:
        param.max_iter = study.iterations
    param.test_interval = -(-param.max_iter // study.tests)
    param.max_iter = param.test_interval * study.tests  # the last test is at the end
    param.test_initialization = True
    param.display = max(1, param.max_iter // _DISPLAYS)
    param.snapshot, param.snapshot_after_train, param.snapshot_prefix = 0, False, "run"
    return param


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UsageError(
            f"--out {folder}: cannot be written ({error.strerror}); choose another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"--out {folder}: another comparison is writing it; wait for it"
            ) from error
        yield


def _check_identity(path: Path, identity: dict[str, Any]) -> None:
    known = _read(path)
    if known is None:
        with atomic_write(path) as file:
            file.write(json.dumps(identity, indent=1).encode())
        return
    different = [name for name, value in identity.items() if known.get(name) != value]
    if different:
        raise UsageError(
            f"--out {path.parent}: holds runs with another {' and '.join(different)} (see "
            f"{path.name} there); choose another folder, or remove it"
        )


def _read(path: Path) -> dict[str, Any] | None:
    """Return what is in a file of ours; None if it is not there, or somebody has spoilt it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def result_of(run: Run, place: Place) -> Row | None:
    """Return the row of a run that was run before; None if there is none, or if it failed."""
    return _read(place.folder / run.name / _RESULT)


def run_one(run: Run, study: Study, place: Place, iterations: int) -> Row:
    """Run one run to its end, and keep its row.

    Raises:
        KeyboardInterrupt: Somebody has interrupted it; nothing of it counts.
    """
    folder = place.folder / run.name
    folder.mkdir(parents=True, exist_ok=True)
    words = ["--solver", str(place.folder / _SOLVER), "--out", str(folder), "--seed", str(run.seed)]
    words += ["--net", study.net] if study.net else []
    words += run.combination.words
    if not run.combination.is_single:
        words += _NO_CHECKPOINTS
        words += ["--per-worker"] if study.per_worker else []
        words += ["--master", place.master] if place.master else []
    words += place.flags
    with (folder / _OUTPUT).open("wb") as output:
        status, others = _train(words, output.fileno())
    row = _facts(run, study, iterations) | {"other_load": round(others, 3)}
    try:
        if status != 0:
            raise DataError(_last_words(folder / _OUTPUT, status))
        row |= measurements(read_run(folder))
    except DataError as error:
        row |= {"status": "diverged" if DIVERGES in str(error) else "failed", "error": str(error)}
        if row["status"] == "failed":
            return row
    with atomic_write(folder / _RESULT) as file:
        file.write(json.dumps(row).encode())
    return row


def _train(words: Sequence[str], output: int) -> tuple[int, float]:
    """Run `train`; return its exit status, and the share of the machine that others used."""
    process = subprocess.Popen(
        [sys.executable, "-c", _TRAIN, str(os.getpid()), *words],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        meter = LoadMeter(process.pid)
        while process.poll() is None:
            meter.sample()
            time.sleep(_SAMPLE_S)
        return process.returncode, meter.others()
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have a run stop, and Spark with it."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_END_S)


def _facts(run: Run, study: Study, iterations: int) -> dict[str, Any]:
    combination = run.combination
    return {
        "run": run.name,
        "strategy": combination.strategy,
        "workers": combination.workers,
        "options": dict(combination.options),
        "label": combination.label,
        "seed": run.seed,
        "per_worker": study.per_worker,
        "net": Path(study.net or study.solver or "").name,
        "solver": Path(study.solver).name if study.solver else None,
        "iterations": iterations,
        "status": "finished",
        "error": None,
        "machine": machine(),
    }


def _last_words(output: Path, status: int) -> str:
    """Return why a run failed, by what it printed."""
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in lines if line.startswith("error: ")] or lines[-1:]
    words = said[-1].removeprefix("error: ") if said else "it said nothing"
    return f"train ended with status {status}: {words} (all it said: {output})"
