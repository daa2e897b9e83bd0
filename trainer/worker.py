"""The loop that every worker runs, whatever the cluster and the strategy."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch

from prototxt_parser.definition import NetDefinition
from prototxt_parser.errors import PrototxtError
from prototxt_parser.proto.caffe_pb2 import SolverParameter
from solvers import Callback, Solver, SolverError
from solvers.feed import FeedOpener
from trainer.data.feed import open_feed
from trainer.errors import TrainerError
from trainer.links import Control, DriverLink, Group, PeerLostError, Start
from trainer.plan import DistributedPlan, Milestones
from trainer.strategies import Phase, Replica, get_strategy
from trainer.strategies.arithmetic import Layout

# A worker tells the driver how far it is, and learns whether to stop, this often.
_BEAT_S = 1.0


@dataclass(frozen=True)
class WorkerTask:
    """One worker's part of a run, as it travels: nothing in it is open.

    Attributes:
        rank: Which worker.
        plan: The run.
        milestones: When the driver wants the state of a synchronous run.
        param: The solver's settings, without what the driver does: display, test, snapshot.
        net: The net to train.
        open_feed: Where its batches come from; None for the files that it names.
    """

    rank: int
    plan: DistributedPlan
    milestones: Milestones
    param: SolverParameter
    net: NetDefinition
    open_feed: FeedOpener | None = None


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
        start = driver.start(socket.gethostname())
        task.plan.extensions.install()
        with joining as group, closing(_build_solver(task, start)) as solver:
            _Loop(task, solver, driver, group).run()
        driver.finish()
    except Exception as error:  # whatever it is, the driver has to name it
        _tell(driver, error)
        raise


@final
class _Loop(Callback):
    """Local phases and exchanges, until the share is done or the driver says stop."""

    def __init__(
        self, task: WorkerTask, solver: Solver, driver: DriverLink, group: Group | None
    ) -> None:
        plan = task.plan
        self._plan, self._rank, self._milestones = plan, task.rank, task.milestones
        self._solver, self._driver, self._group = solver, driver, group
        self._strategy = get_strategy(plan.strategy)(plan.options)
        self._layout = Layout.of(solver.net.flat.segments)
        self._end = plan.share(task.rank, plan.max_iter)
        self._offset = _offset(plan, task.rank)
        self._progress = plan.start_iteration
        self._batch = _batch_size(solver) * solver.param.iter_size
        self._phase = Phase(self._iteration)
        self._exchange_s, self._staleness = 0.0, 0
        self._records: list[Mapping[str, Any]] = []
        self._last_beat = time.monotonic()
        self._control = Control()
        solver.callbacks.append(self)

    def run(self) -> None:
        """Alternate phases and exchanges."""
        self._strategy.start(self._replica, self._group or self._driver)
        while self._group is not None or not self._is_done:
            started = time.monotonic()
            self._exchange_s, self._phase = 0.0, Phase(self._iteration)
            self._train()
            if not self._strategy.exchanges_gradients:
                self._exchange()
            self._note(time.monotonic() - started - self._exchange_s)
            if self._group is not None and self._is_done_together(self._group):
                break
        self._beat()

    def on_gradients_ready(self, solver: Solver) -> None:
        """Exchange, if gradients are what is exchanged."""
        if self._strategy.exchanges_gradients:
            self._exchange()

    def on_iteration(self, solver: Solver, loss: float) -> None:
        """Count the loss; let the driver hear of this worker now and then."""
        self._phase.losses.append(loss)
        if time.monotonic() - self._last_beat >= _BEAT_S:
            self._records.append(
                {
                    "kind": "progress",
                    "iteration": self._iteration,
                    "batch": self._batch,
                    "loss": loss,
                }
            )
            self._beat()

    @property
    def _iteration(self) -> int:
        """Iterations of this worker; the solver's own count is the same for all ranks."""
        return self._solver.iteration + self._offset

    @property
    def _left(self) -> int:
        return self._end - self._iteration

    @property
    def _is_done(self) -> bool:
        return self._left <= 0 or self._control.stop

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
        self._staleness = self._strategy.exchange(self._replica, self._group or self._driver)
        self._exchange_s += time.monotonic() - started

    def _note(self, compute_s: float) -> None:
        losses = self._phase.losses
        self._records.append(
            {
                "kind": "exchange",
                "iteration": self._iteration,
                "batch": self._batch,
                "loss": sum(losses) / len(losses) if losses else None,
                "lr": self._solver.lr,
                "compute_s": compute_s,
                "exchange_s": self._exchange_s,
                "staleness": self._staleness,
            }
        )
        if time.monotonic() - self._last_beat >= _BEAT_S:
            self._beat()

    def _beat(self) -> None:
        self._control = self._driver.report(self._records)
        self._records = []
        self._last_beat = time.monotonic()

    def _is_done_together(self, group: Group) -> bool:
        """Agree with the other workers on progress and end; rank 0 publishes what is wanted."""
        state = [self._iteration, self._control.stop, self._left > 0]
        means = torch.tensor(state, dtype=torch.float64)
        group.mean_(means)
        iterations, stopping, working = (means * self._plan.num_workers).round().int().tolist()
        before, self._progress = self._progress, self._plan.progress(iterations)
        is_done = bool(stopping > 0 or working == 0)
        is_wanted = self._milestones.is_any(before, self._progress) or self._control.publish
        if self._rank == 0 and (is_done or is_wanted):
            model = self._strategy.model(self._replica)
            self._driver.publish(self._progress, model, self._solver.history)
        return is_done


def _build_solver(task: WorkerTask, start: Start) -> Solver:
    plan = task.plan
    files = partial(
        open_feed,
        seed=plan.seed,
        rank=task.rank,
        world_size=plan.num_workers,
        data_dir=plan.data_dir,
    )
    solver = Solver(
        task.param,
        task.open_feed or files,
        net=task.net,
        device=_device(plan.device, task.rank),
        seed=plan.seed + task.rank,
        with_test_nets=False,
        lr_stride=plan.lr_stride,
    )
    solver.net.flat.data.copy_(start.parameters)
    for slot, values in zip(solver.history, start.history, strict=False):
        slot.copy_(values)
    if start.iteration:
        solver.iteration = start.iteration - _offset(plan, task.rank)
        solver.settle_rate()
        solver.feed.skip(start.iteration * solver.param.iter_size)
    return solver


def _offset(plan: DistributedPlan, rank: int) -> int:
    """Return how far a worker's iterations are ahead of its solver's: 0 or 1.

    A run that goes on where the shares were uneven gives all solvers the same iteration, so that
    all have the same learning rate.
    """
    start = plan.start_iteration
    return plan.share(rank, start) - start // plan.stride


def _device(name: str, rank: int) -> str:
    if name != "cuda":
        return name
    if not torch.cuda.is_available():
        raise TrainerError(f"no GPU that PyTorch can use on {socket.gethostname()}")
    return f"cuda:{rank % torch.cuda.device_count()}"


def _batch_size(solver: Solver) -> int:
    """Return the images of a batch; 0 for a net that reads no data."""
    return next((shape[0] for shape in solver.feed.shapes.values()), 0)


def _tell(driver: DriverLink, error: Exception) -> None:
    """Report the reason for the end, if the driver still listens."""
    is_ours = isinstance(error, PrototxtError | SolverError | TrainerError)
    message = str(error) if is_ours else f"{type(error).__name__}: {error}"
    try:
        driver.fail(message, traceback.format_exc(), is_lost_peer=isinstance(error, PeerLostError))
    except TrainerError as unheard:
        error.add_note(f"the driver could not be told: {unheard}")
