"""Checkpoints of a distributed run: when they are due, and what is in them.

A checkpoint is a Caffe snapshot (`state.caffemodel`, `state.solverstate`, `state.resume.json`) with
what each worker of a synchronous run has beyond it (`rank_K.arrow`), or the centre of an
asynchronous one (`center.arrow`).
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from torch import Tensor

from prototxt_parser.errors import WriteError
from solvers import Solver
from solvers.snapshots import write_files
from trainer.errors import TrainerError
from trainer.plan import DistributedPlan
from trainer.strategies import Strategy

if TYPE_CHECKING:  # they need pyarrow, which a run without checkpoints does not
    from trainer.checkpoints.checkpoint import Checkpoint
    from trainer.checkpoints.pending import Pending
    from trainer.checkpoints.store import CheckpointStore

logger = logging.getLogger(__name__)

STATE = "state"
_FAILURES = (TrainerError, WriteError, OSError)
CENTER = "center.arrow"
_SMALL_PARAMETERS = 1_000_000
_LARGE_INTERVAL_S, _FREQUENT_INTERVAL_S = 60.0, 1.0


@dataclass
class _Draft:
    """A checkpoint of which parts are still to come."""

    pending: Pending
    deposits: dict[int, dict[str, Any]] = field(default_factory=dict)
    values: Mapping[str, Any] | None = None
    metric: float | None = None


@final
class Saver:
    """Makes the checkpoints of a run; a `Depository` for its workers.

    What cannot be written is logged, and the run goes on: the checkpoints before are still there.

    Args:
        store: Where they go.
        plan: The run.
        strategy: Its strategy.
        size: Parameters of the net.
    """

    def __init__(
        self,
        store: CheckpointStore,
        plan: DistributedPlan,
        strategy: Strategy[Any, Any],
        size: int,
    ) -> None:
        self._store, self._plan = store, plan
        self._interval_s = _interval(plan, strategy, size)
        self._last = time.monotonic()
        self._drafts: dict[int, _Draft] = {}
        self._lock = threading.Lock()
        self._failure = ""

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() - self._last >= self._interval_s

    @property
    def wants_deposits(self) -> bool:
        """See `Depository`."""
        with self._lock:
            return self.is_due and not self._drafts

    def deposit(
        self, rank: int, iteration: int, values: Mapping[str, Any], chunks: Iterator[Tensor]
    ) -> None:
        """See `Depository`. The tensors are written as they come."""
        from trainer.checkpoints.tensors import TensorWriter

        count = 0
        try:
            draft = self._draft(iteration)
            with draft.pending.writing(file_of(rank)) as sink, TensorWriter(sink) as writer:
                for chunk in chunks:
                    count += chunk.numel()
                    writer.write(chunk)
        except TrainerError as error:
            self._give_up(iteration, error)
            for _ in chunks:  # the worker waits until all has been taken
                pass
            return
        with self._lock:
            draft.deposits[rank] = {"values": dict(values), "size": count}

    def _draft(self, iteration: int) -> _Draft:
        with self._lock:
            if iteration not in self._drafts:
                self._last = time.monotonic()
                self._drafts[iteration] = _Draft(self._store.begin(iteration))
            return self._drafts[iteration]

    def add_state(self, solver: Solver, metric: float | None) -> None:
        """Add the driver's part to the checkpoint that workers have deposited for, if they have.

        Args:
            solver: At the iteration of it.
            metric: Result of its test, the higher the better; None if it was not tested.
        """
        with self._lock:
            draft = self._drafts.get(solver.iteration)
        if draft is None:
            return
        try:
            _write_solver(draft.pending, solver)
        except _FAILURES as error:
            self._give_up(solver.iteration, error)
            return
        draft.values, draft.metric = self._values([]), metric

    def complete(self) -> None:
        """Complete every checkpoint of which all parts are there."""
        with self._lock:
            drafts = list(self._drafts.items())
        for iteration, draft in drafts:
            if draft.values is None or len(draft.deposits) < self._plan.num_workers:
                continue
            deposits = [draft.deposits[rank] for rank in range(self._plan.num_workers)]
            try:
                draft.pending.commit({**draft.values, "deposits": deposits}, draft.metric)
                with self._lock:
                    del self._drafts[iteration]
            except TrainerError as error:
                self._give_up(iteration, error)

    def save(
        self,
        solver: Solver,
        iterations: Sequence[int],
        center_state: Sequence[Tensor],
        metric: float | None = None,
    ) -> None:
        """Make a checkpoint of a centre, or of what all workers begin with.

        Args:
            solver: Holds it.
            iterations: Of each worker; none at the beginning.
            center_state: What the centre's moves keep, shape (P,) each.
            metric: See `add_state`.
        """
        from trainer.checkpoints.tensors import write_tensors

        self._last = time.monotonic()
        try:
            with self._store.begin(solver.iteration) as pending:
                _write_solver(pending, solver)
                with pending.writing(CENTER) as sink:
                    write_tensors(sink, center_state)
                values = {**self._values(iterations), "center_tensors": len(center_state)}
                pending.commit(values, metric)
        except _FAILURES as error:
            self._warn(solver.iteration, error)

    def discard(self) -> None:
        """Give up what is not complete: its workers have ended."""
        for iteration in list(self._drafts):
            self._give_up(iteration)

    def latest(self) -> Checkpoint | None:
        """Return the newest whole checkpoint."""
        return self._store.latest()

    def _give_up(self, iteration: int, error: Exception | None = None) -> None:
        with self._lock:
            draft = self._drafts.pop(iteration, None)
        if draft is not None:
            draft.pending.discard()
        if error is not None:
            self._warn(iteration, error)

    def _warn(self, iteration: int, error: Exception) -> None:
        """Log a failure; one that lasts only once."""
        level = logging.DEBUG if str(error) == self._failure else logging.WARNING
        logger.log(level, "No checkpoint of iteration %d: %s", iteration, error)
        self._failure = str(error)

    def _values(self, iterations: Sequence[int]) -> dict[str, Any]:
        plan = self._plan
        return {
            "strategy": plan.strategy,
            "workers": plan.num_workers,
            "per_worker": plan.per_worker,
            "iterations": list(iterations),
        }


def _interval(plan: DistributedPlan, strategy: Strategy[Any, Any], size: int) -> float:
    """Return the seconds between two checkpoints; 0 for one at every exchange of all workers."""
    given = None if plan.checkpoints is None else plan.checkpoints.interval_s
    if given is not None:
        return given
    if size > _SMALL_PARAMETERS:
        return _LARGE_INTERVAL_S
    is_round = strategy.is_synchronous and not strategy.exchanges_gradients
    return 0.0 if is_round else _FREQUENT_INTERVAL_S


def _write_solver(pending: Pending, solver: Solver) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in write_files(solver, Path(folder, STATE)):
            pending.copy_from(path)


def file_of(rank: int) -> str:
    """Return the name of the file that holds a worker's deposit."""
    return f"rank_{rank}.arrow"
