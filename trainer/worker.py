"""The loop that every worker runs, whatever the cluster and the strategy."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import final

import torch

from prototxt_parser.errors import PrototxtError
from solvers import Callback, Solver, SolverError
from trainer.caffe_log import WORKER_THREAD
from trainer.compression import CompressedLink
from trainer.errors import TrainerError
from trainer.heartbeat import Heartbeat, LogRecords, beating
from trainer.links import CenterLink, DriverLink, Group, PeerLostError, Place, Start, Traffic
from trainer.overlap import Inline, Overlap
from trainer.plan import IN_PROCESS, DistributedPlan
from trainer.strategies import Phase, Replica, get_strategy
from trainer.strategies.arithmetic import Layout
from trainer.task import WorkerTask
from trainer.worker_state import (
    batch_size,
    iterations_ahead,
    open_solver,
    restore_strategy,
    to_deposit,
)

# The driver sees how far a worker is this often.
_PROGRESS_S = 1.0


def run_worker(
    task: WorkerTask, driver: DriverLink, joining: AbstractContextManager[Group | None]
) -> None:
    """Train one worker's share.

    Args:
        task: What to do.
        driver: Connection to the driver.
        joining: Gives the group of the workers of a synchronous run; None in an asynchronous one.
    """
    try:
        start = driver.start(Place.here())
        with _heart(task, driver) as heart:
            task.plan.extensions.install()
            with joining as group, closing(open_solver(task, start)) as solver:
                loop = _Loop(task, solver, driver, heart, group)
                loop.begin(start)
                del start  # as large as the net and its histories
                loop.run()
        driver.finish()
    except Exception as error:  # whatever it is, the driver has to name it
        _tell(driver, error)
        raise


@contextmanager
def _heart(task: WorkerTask, driver: DriverLink) -> Iterator[Heartbeat]:
    """Beat, and send the driver what is logged here if that is another process."""
    with beating(driver, f"{WORKER_THREAD} {task.rank} heartbeat") as heart:
        if task.plan.master == IN_PROCESS:
            yield heart
            return
        handler, root = LogRecords(heart, task.plan.log_level), logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(min(level, task.plan.log_level))
        try:
            yield heart
        finally:
            root.removeHandler(handler)
            root.setLevel(level)


@final
class _Loop(Callback):
    """Local phases and exchanges, until the share is done or the driver says stop."""

    def __init__(
        self,
        task: WorkerTask,
        solver: Solver,
        driver: DriverLink,
        heart: Heartbeat,
        group: Group | None,
    ) -> None:
        plan = task.plan
        self._plan, self._rank, self._milestones = plan, task.rank, task.milestones
        self._solver, self._driver, self._heart, self._group = solver, driver, heart, group
        self._strategy = get_strategy(plan.strategy)(plan.options)
        self._overlap = _overlap(plan)
        self._layout = Layout.of(solver.net.flat.segments)
        self._link = group or _center_link(driver, plan.exchange_dtype, self._layout)
        self._share = plan.share(task.rank, plan.max_iter)
        self._offset = iterations_ahead(plan, task.rank)
        self._progress = plan.start_iteration
        ranks = range(plan.num_workers)
        self._all_iterations = sum(plan.share(rank, plan.start_iteration) for rank in ranks)
        self._batch = batch_size(solver) * solver.param.iter_size
        self._phase = Phase(self._iteration)
        self._exchange_s, self._staleness, self._traffic = 0.0, 0, Traffic()
        self._last_progress = time.monotonic()
        solver.callbacks.append(self)

    def begin(self, start: Start) -> None:
        """Prepare the strategy."""
        self._strategy.start(self._replica, self._link)
        restore_strategy(self._strategy, start)

    def run(self) -> None:
        """Alternate phases and exchanges."""
        self._heart.beat()
        if self._group is not None:
            self._run_in_group(self._group)
            return
        while not self._is_done:
            while not self._is_done:
                self._run_phase()
            self._heart.beat()  # a lost worker's share may have been added to this one's
        if self._overlap is not None:
            self._settle(self._overlap)
            self._overlap.close()

    def _run_in_group(self, group: Group) -> None:
        is_done = False
        while not is_done:
            self._run_phase()
            is_done = self._meet(group)
        self._heart.beat()

    def _run_phase(self) -> None:
        started = time.monotonic()
        self._exchange_s, self._phase, self._traffic = 0.0, Phase(self._iteration), Traffic()
        self._train()
        if not self._strategy.exchanges_gradients:
            self._exchange()
        self._note(time.monotonic() - started - self._exchange_s)
        self._heart.beat_soon()

    def on_gradients_ready(self, solver: Solver) -> None:
        """Exchange, if gradients are what is exchanged."""
        if self._strategy.exchanges_gradients:
            self._exchange()

    def on_iteration(self, solver: Solver, loss: float) -> None:
        """Count the loss, take in what an exchange has brought, show how far this worker is."""
        self._phase.losses.append(loss)
        if self._overlap is not None and self._overlap.is_done:
            self._settle(self._overlap)
        if time.monotonic() - self._last_progress >= _PROGRESS_S:
            self._last_progress = time.monotonic()
            self._heart.add(self._record("progress", loss))
            self._heart.beat_soon()

    @property
    def _iteration(self) -> int:
        """Iterations of this worker; the solver's own count is the same for all ranks."""
        return self._solver.iteration + self._offset

    @property
    def _left(self) -> int:
        return self._share + self._heart.control.extra - self._iteration

    @property
    def _is_done(self) -> bool:
        return self._left <= 0 or self._heart.control.stop

    @property
    def _replica(self) -> Replica:
        flat, history = self._solver.net.flat, self._solver.history
        return Replica(flat.data, flat.grad, history, self._layout, self._iteration, self._is_done)

    def _train(self) -> None:
        """Run iterations until an exchange is due, or there is nothing left to do."""
        if self._is_done and self._strategy.exchanges_gradients:
            self._follow()
        while not self._is_done:
            self._solver.advance(1)
            if self._strategy.is_due(self._phase):
                break

    def _follow(self) -> None:
        """Make the update of the others' gradients, with none of one's own, and do not count it."""
        self._solver.net.flat.grad.zero_()
        self._exchange()
        self._solver.apply_update()
        self._solver.iteration -= 1

    def _exchange(self) -> None:
        started = time.monotonic()
        if self._overlap is None:
            self._staleness = self._exchange_with(self._replica)
        else:
            self._settle(self._overlap)
            self._overlap.begin(self._replica, self._exchange_with)
            if self._is_done:
                self._settle(self._overlap)
        self._exchange_s += time.monotonic() - started

    def _exchange_with(self, replica: Replica) -> int:
        before = self._link.traffic
        staleness = self._strategy.exchange(replica, self._link)
        self._traffic += self._link.traffic - before
        return staleness

    def _settle(self, overlap: Overlap) -> None:
        self._staleness = overlap.settle(self._solver.net.flat.data)

    def _note(self, compute_s: float) -> None:
        losses = self._phase.losses
        self._heart.add(
            {
                **self._record("exchange", sum(losses) / len(losses) if losses else None),
                "lr": self._solver.lr,
                "compute_s": compute_s,
                "exchange_s": self._exchange_s,
                "sent_bytes": self._traffic.sent,
                "received_bytes": self._traffic.received,
                "staleness": self._staleness,
            }
        )

    def _record(self, kind: str, loss: float | None) -> dict[str, object]:
        return {"kind": kind, "iteration": self._iteration, "batch": self._batch, "loss": loss}

    def _meet(self, group: Group) -> bool:
        """Agree with the other workers on progress and end; hand over what the driver wants."""
        control = self._heart.control
        done = self._iteration - self._phase.start
        state = [done, control.stop, self._left > 0, control.deposit, control.publish]
        means = torch.tensor(state, dtype=torch.float32)
        group.mean_(means)
        sums = (means * self._plan.num_workers).round().int().tolist()
        iterations, stopping, working, depositing, publishing = sums
        self._all_iterations += iterations
        before, self._progress = self._progress, self._plan.progress(self._all_iterations)
        is_done = bool(stopping > 0 or working == 0)
        is_due = is_done or self._milestones.is_any(before, self._progress)
        is_saved = self._plan.checkpoints is not None and (is_due or depositing > 0)
        if is_saved:
            self._driver.deposit(self._progress, *to_deposit(self._solver, self._strategy))
        if self._rank == 0 and (is_due or is_saved or publishing > 0):
            model = self._strategy.model(self._replica)
            self._driver.publish(self._progress, model, self._solver.history)
        return is_done


def _center_link(driver: DriverLink, dtype: str, layout: Layout) -> CenterLink:
    """Return what exchanges with the centre, in the type that is wanted."""
    if dtype == "float32":
        return driver
    return CompressedLink(driver, getattr(torch, dtype), layout)


def _overlap(plan: DistributedPlan) -> Overlap | None:
    """Return what runs exchanges beside iterations, if that is wanted.

    Workers that take turns in one process exchange in their turn, and settle after an iteration.
    """
    if not plan.overlap:
        return None
    return Overlap(Inline() if plan.master == IN_PROCESS else None)


def _tell(driver: DriverLink, error: Exception) -> None:
    """Report the reason for the end, if the driver still listens."""
    is_ours = isinstance(error, PrototxtError | SolverError | TrainerError)
    message = str(error) if is_ours else f"{type(error).__name__}: {error}"
    try:
        driver.fail(message, traceback.format_exc(), is_lost_peer=isinstance(error, PeerLostError))
    except TrainerError as unheard:
        error.add_note(f"the driver could not be told: {unheard}")
