"""Running a recipe from start to end: data, log, metrics, progress, signals."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from solvers import Callback, Solver
from trainer.caffe_log import log_lines
from trainer.coordinator import RunResult, run_distributed
from trainer.data.feed import open_feed
from trainer.describe import metrics_path
from trainer.device import log_gpus
from trainer.errors import TrainerError, UsageError
from trainer.metrics import MetricsCallback, MetricsFile, Records, Sink
from trainer.plan import DistributedPlan
from trainer.progress import ProgressBar
from trainer.recipe import Recipe
from trainer.restart import restore
from trainer.run_store import RunStore
from trainer.signals import SignalPoll
from trainer.start_record import images_per_iteration, start_record
from trainer.tally import Observer
from trainer.tensorboard import TensorBoardFiles
from trainer.workers_table import workers_table

if TYPE_CHECKING:
    from trainer.checkpoints.store import CheckpointStore

logger = logging.getLogger(__name__)


def launch(
    recipe: Recipe,
    plan: DistributedPlan | None,
    *,
    device: str,
    seed: int,
    data_dir: Path | None,
    snapshot: str | None,
    runs: RunStore | None,
    poll: SignalPoll,
    tensorboard: Path | None,
    log_to_file: bool,
    log_to_terminal: bool,
) -> Result:
    """Train a recipe to its `max_iter`.

    Args:
        recipe: Net and solver.
        plan: How workers run it; None for one process.
        device: PyTorch device of the driver's nets.
        seed: Of fillers, Dropout and random transforms.
        data_dir: Where to look for databases that are not where the net says.
        snapshot: State to resume, or None.
        runs: Where a run with workers saves itself, and perhaps goes on from.
        poll: Signals.
        tensorboard: Folder for event files; None for none.
        log_to_file: Write Caffe's log lines beside the snapshots.
        log_to_terminal: Write them to standard error even if that is a terminal; elsewhere they
            always go there.

    Returns:
        How it ended.

    Raises:
        PrototxtError, SolverError, TrainerError: Something cannot be built, read or written.
    """
    shows_bar = sys.stderr.isatty()
    log = _log_file(Path(recipe.param.snapshot_prefix)) if log_to_file else None
    with ExitStack() as stack:
        stack.enter_context(log_lines(log, to_terminal=log_to_terminal or not shows_bar))
        log_gpus(device)
        solver = Solver(
            recipe.param,
            partial(open_feed, seed=seed, data_dir=data_dir),
            net=recipe.net,
            device=device,
            seed=seed,
        )
        stack.callback(solver.close)
        if snapshot is not None:
            logger.info("Resuming from %s", snapshot)
            solver.restore(snapshot)
        store = None if runs is None else runs.open(seed, recipe)
        checkpoint = None if runs is None else runs.checkpoint
        if checkpoint is not None:
            restore(solver, checkpoint)
        is_resumed = snapshot is not None or checkpoint is not None
        batch = images_per_iteration(recipe, plan)
        file = MetricsFile(metrics_path(recipe.param), batch, is_resumed=is_resumed)
        records = stack.enter_context(_records(file, tensorboard, solver.iteration))
        start = start_record(recipe, plan, net=solver.net.name, seed=seed, device=device)
        records.write("start", solver.iteration, start)
        result = Result(solver)
        solver.callbacks += [MetricsCallback(records), result]
        bar: ProgressBar | None = None
        if shows_bar:
            workers = 1 if plan is None else plan.num_workers
            bar = ProgressBar(recipe.param.max_iter, solver.iteration, batch, workers)
            solver.callbacks.append(stack.enter_context(closing(bar)))
        stack.enter_context(poll.installed())
        logger.info("Starting Optimization")
        if plan is None:
            solver.poll = poll
            solver.solve()
            records.write_event("end", solver.iteration, {})
        else:
            observer = _WorkersObserver(records, bar)
            run = run_distributed(
                solver,
                plan,
                observer=observer,
                net=recipe.net,
                poll=poll,
                store=store,
                checkpoint=checkpoint,
            )
            result.workers = _report(run, observer, store)
        logger.info("Optimization Done.")
        return result


def _report(run: RunResult, observer: Observer, store: CheckpointStore | None) -> list[str]:
    """Write down what the workers did, and that the run has come to its end; return the table."""
    observer.on_event("end", run.iteration, {"workers": [asdict(each) for each in run.workers]})
    table = workers_table(run.workers)
    for line in table:
        logger.info("%s", line)
    if store is not None and not run.is_stopped_early:
        try:
            store.finish()
        except TrainerError as error:
            logger.warning("The run has finished, which could not be noted: %s", error)
    return table


@contextmanager
def _records(file: MetricsFile, tensorboard: Path | None, iteration: int) -> Iterator[Records]:
    """Give what writes to the metrics file, and to event files if there is a folder for them."""
    with ExitStack() as stack:
        sinks: list[Sink] = [stack.enter_context(closing(file))]
        if tensorboard is not None:
            events = TensorBoardFiles(tensorboard, iteration)
            sinks.append(stack.enter_context(closing(events)))
        yield Records(sinks)


def _log_file(prefix: Path) -> Path:
    """Return where the log goes; its folder is made."""
    folder = prefix.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--out {folder}: cannot be made ({error.strerror}); choose another folder"
        ) from error
    return Path(f"{prefix}_train.log")


@final
class Result(Callback):
    """How a run ended: the last test and snapshot as a string, and what its workers did.

    Attributes:
        workers: Lines of a table; none for a run in one process.
    """

    def __init__(self, solver: Solver) -> None:
        self._solver, self._start = solver, time.monotonic()
        self._outputs: dict[str, float] = {}
        self._state: Path | None = None
        self.workers: list[str] = []

    def on_test(self, solver: Solver, results: Sequence[dict[str, float]]) -> None:
        """Remember the outputs."""
        self._outputs = results[0] if results else {}

    def on_snapshot(self, solver: Solver, path: Path) -> None:
        """Remember the path."""
        self._state = path

    def __str__(self) -> str:
        parts = [f"iteration {self._solver.iteration}", f"{time.monotonic() - self._start:.0f} s"]
        parts += [f"{name} {value:.4f}" for name, value in self._outputs.items()]
        return ", ".join([*parts, *([str(self._state)] if self._state else [])])


@final
class _WorkersObserver:
    """Passes on what workers report, to be recorded and for the progress bar."""

    def __init__(self, records: Records, bar: ProgressBar | None) -> None:
        self._records, self._bar = records, bar

    def on_progress(self, iteration: int, loss: float) -> None:
        if self._bar is not None:
            self._bar.advance_to(iteration)
            self._bar.show(loss=loss)

    def on_exchange(self, record: Mapping[str, Any]) -> None:
        self._records.write("exchange", record["iteration"], record)
        if self._bar is not None:
            self._bar.show_exchange(record)

    def on_event(self, what: str, iteration: int, values: Mapping[str, Any]) -> None:
        self._records.write_event(what, iteration, values)
        if self._bar is not None:
            self._bar.show_event(what, values)
