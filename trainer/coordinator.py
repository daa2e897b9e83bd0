"""The driver's side of a distributed run: starts the workers, tests and saves what they make."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from prototxt_parser.definition import NetDefinition
from prototxt_parser.proto.caffe_pb2 import SolverParameter
from solvers import Action, Solver
from solvers.settings import train_choice
from trainer.cluster import open_cluster
from trainer.cluster.base import Cluster
from trainer.errors import TrainerError
from trainer.parameter_server.desk import Desk, Milestone
from trainer.parameter_server.shared import shared_file
from trainer.plan import DistributedPlan, Milestones
from trainer.strategies import Strategy, get_strategy
from trainer.strategies.arithmetic import Layout
from trainer.tally import Observer, Tally
from trainer.worker import WorkerTask, run_worker

logger = logging.getLogger(__name__)

_TICK_S = 0.2
_GRACE_S = 60.0  # workers give up on each other first, and say on whom
_JOIN_S = 30.0
# What the driver does, so that no worker does it.
_DRIVER_FIELDS = (
    *("display", "snapshot", "snapshot_prefix", "weights"),
    *("test_interval", "test_iter", "test_state", "test_net", "test_net_param"),
)


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        iteration: Where.
        samples: Images that all workers together have seen.
        seconds: From the first test to the last snapshot.
        is_stopped_early: Somebody asked for it.
    """

    iteration: int
    samples: int
    seconds: float
    is_stopped_early: bool


def run_distributed(
    solver: Solver,
    plan: DistributedPlan,
    *,
    observer: Observer,
    net: NetDefinition | None = None,
    poll: Callable[[], Action] = lambda: Action.NONE,
    cluster: Cluster | None = None,
) -> RunResult:
    """Train with several workers, and end as Caffe's `Solve` does.

    Tests run here, in the TEST phase, on the average or the centre. So do snapshots: they hold rank
    0's momentum in a synchronous run, and none in an asynchronous one. What else a strategy keeps,
    such as an outer momentum, starts anew in a run that is resumed.

    Args:
        solver: The driver's own. Its weights, histories and iteration are where the run starts, and
            what it has made when this returns.
        plan: What to do.
        observer: Hears of progress and exchanges.
        net: Definition that the solver was made from, if not the one that its settings name.
        poll: Asked several times a second what to do.
        cluster: Where the workers run; None for what the plan names.

    Raises:
        TrainerError: The cluster cannot run the workers, or one of them failed; says which.
    """
    definition = net or train_choice(solver.param).definition
    strategy = get_strategy(plan.strategy)(plan.options)
    with cluster or open_cluster(plan) as running, _center_file(strategy, solver) as shared:
        solver.poll, solver.stopped_early = poll, False
        plan = _warm_up(solver, plan, strategy.warm_start)
        tally = Tally(plan, observer, solver.param.display)
        return _Run(solver, plan, strategy, tally, shared).run(running, definition)


def _center_file(
    strategy: Strategy[Any, Any], solver: Solver
) -> AbstractContextManager[Path | None]:
    """Give the file of a centre that workers share, None for any other."""
    if not strategy.center.is_shared:
        return nullcontext()
    return shared_file(solver.net.flat.data.numel())


def _warm_up(solver: Solver, plan: DistributedPlan, until: int) -> DistributedPlan:
    """Train in this process up to iteration `until`; return the plan of the rest."""
    count = min(until, plan.max_iter) - plan.start_iteration
    if count <= 0:
        return plan
    logger.info("Warm start: %d iterations in one process", count)
    solver.step(count)
    return replace(plan, start_iteration=solver.iteration)


@final
class _Run:
    """One run, seen from the driver."""

    def __init__(
        self,
        solver: Solver,
        plan: DistributedPlan,
        strategy: Strategy[Any, Any],
        tally: Tally,
        shared: Path | None,
    ) -> None:
        self._solver, self._plan, self._tally = solver, plan, tally
        self._strategy = strategy
        test_interval = solver.param.test_interval if solver.tests else 0
        self._milestones = Milestones(test_interval, solver.param.snapshot)
        self._desk = Desk(
            plan,
            self._milestones,
            solver.net.flat.data,
            solver.history,
            Layout.of(solver.net.flat.segments),
            strategy.center,
            shared,
        )
        self._reached = start = plan.start_iteration
        # As Caffe's, which takes a multiple of `snapshot` for saved.
        is_saved = solver.param.snapshot and start % solver.param.snapshot == 0
        self._saved_at = start if is_saved else -1
        self._is_stopping, self._is_snapshot_wanted = solver.stopped_early, False

    def run(self, cluster: Cluster, net: NetDefinition) -> RunResult:
        """Test, train, save."""
        started = time.monotonic()
        if not self._is_stopping and self._is_initial_test_due():
            self._test()
        if not self._is_stopping and self._plan.start_iteration < self._plan.max_iter:
            self._train(cluster, net)
        self._save_at_end()
        iteration = self._solver.iteration
        is_early = iteration < self._plan.max_iter
        if is_early:
            logger.info("Optimization stopped early.")
        return RunResult(iteration, self._tally.samples, time.monotonic() - started, is_early)

    def _train(self, cluster: Cluster, net: NetDefinition) -> None:
        """Run the workers in another thread, and attend to them in this one."""
        tasks = self._tasks(net)
        in_group = self._strategy.is_synchronous
        if not in_group:  # the centre has no momentum to be saved
            for slot in self._solver.history:
                slot.zero_()
        self._desk.begin()
        run = _Background(lambda: cluster.run(run_worker, tasks, self._desk, in_group=in_group))
        try:
            self._attend(run)
        except BaseException:
            self._desk.request_stop()
            self._desk.close()
            cluster.cancel()
            run.thread.join(_JOIN_S)
            raise
        if run.error is not None:
            raise TrainerError(self._desk.failure() or str(run.error)) from run.error
        if not in_group:
            self._load(self._center())

    def _tasks(self, net: NetDefinition) -> list[WorkerTask]:
        """Return each worker's task: the same settings, without what the driver does."""
        param = SolverParameter()
        param.CopyFrom(self._solver.param)
        for name in _DRIVER_FIELDS:
            param.ClearField(name)
        self._strategy.adapt(param)
        ranks = range(self._plan.num_workers)
        return [WorkerTask(rank, self._plan, self._milestones, param, net) for rank in ranks]

    def _attend(self, run: _Background) -> None:
        """Pass on wishes and take what comes, until the workers have ended and all is taken."""
        is_over = False
        while not is_over:
            is_over = not run.thread.is_alive()
            self._obey(self._solver.poll())
            milestone = self._desk.next_milestone(0 if is_over else _TICK_S)
            for record in self._desk.take_records():
                self._tally.add(record)
            if milestone is not None:
                is_over = False
                self._reach(milestone)
            elif not is_over:
                self._check_silence()

    def _obey(self, action: Action) -> None:
        if action is Action.STOP:
            self._is_stopping = True
            self._desk.request_stop()
        elif action is Action.SNAPSHOT and self._strategy.is_synchronous:
            self._is_snapshot_wanted = True
            self._desk.request_publication()
        elif action is Action.SNAPSHOT:
            self._load(self._center())
            self._snapshot()

    def _check_silence(self) -> None:
        limit = self._plan.wait_timeout_s + _GRACE_S
        silent = self._desk.silent(limit)
        if silent:
            raise TrainerError(
                f"no word from {', '.join(silent)} for {limit:g} s: its machine is down, the "
                "network is cut, or it could not be started; see Spark's log of the executors"
            )

    def _reach(self, milestone: Milestone) -> None:
        """Save and test as Caffe would at this iteration."""
        before, self._reached = self._reached, milestone.iteration
        self._load(milestone)
        if self._is_snapshot_wanted or self._milestones.is_snapshot(before, self._reached):
            self._is_snapshot_wanted = False
            self._snapshot()
        if self._reached >= self._plan.max_iter:
            self._save_at_end()
        if self._milestones.is_test(before, self._reached) and not self._is_stopping:
            self._test()

    def _center(self) -> Milestone:
        center = self._desk.center
        return Milestone(self._plan.progress(center.worker_iterations), center.copy())

    def _load(self, milestone: Milestone) -> None:
        self._solver.net.flat.data.copy_(milestone.parameters)
        for slot, values in zip(self._solver.history, milestone.history, strict=False):
            slot.copy_(values)
        self._solver.iteration = milestone.iteration
        self._solver.settle_rate()

    def _is_initial_test_due(self) -> bool:
        start, param = self._plan.start_iteration, self._solver.param
        interval = self._milestones.test_interval
        is_multiple = interval > 0 and start % interval == 0
        return (
            is_multiple and start < self._plan.max_iter and (start > 0 or param.test_initialization)
        )

    def _test(self) -> None:
        self._solver.stopped_early = False
        self._solver.test_all()
        if self._solver.stopped_early:
            self._obey(Action.STOP)

    def _save_at_end(self) -> None:
        if self._solver.param.snapshot_after_train and self._saved_at != self._solver.iteration:
            self._snapshot()

    def _snapshot(self) -> None:
        self._solver.snapshot()
        self._saved_at = self._solver.iteration


@final
class _Background:
    """Something that runs in a thread of its own from now on.

    Attributes:
        thread: The thread.
        error: What it ended with, if with an exception.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self.error: Exception | None = None
        self.thread = threading.Thread(
            target=self._run, args=(action,), daemon=True, name="cluster"
        )
        self.thread.start()

    def _run(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever it is, the driver raises it in its own thread
            self.error = error
