"""The driver's side of a distributed run: starts the workers, tests and saves what they make."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

from prototxt_parser.definition import NetDefinition
from prototxt_parser.proto.caffe_pb2 import SolverParameter
from solvers import Action, Solver
from solvers.settings import train_choice
from trainer.checkpoints import open_store
from trainer.cluster import open_cluster
from trainer.cluster.base import Cluster
from trainer.errors import LostWorkerError
from trainer.examiner import Examiner
from trainer.parameter_server.center_file import CenterFile, center_file
from trainer.parameter_server.desk import Desk, Given
from trainer.plan import Checkpoints, DistributedPlan
from trainer.plan_rules import check_features
from trainer.restart import Restart, restore
from trainer.saving import Saver
from trainer.strategies import Strategy, get_strategy
from trainer.strategies.arithmetic import Layout
from trainer.submission import Submission
from trainer.tally import Observer, Tally, WorkerTotals
from trainer.task import WorkerTask

if TYPE_CHECKING:
    from trainer.checkpoints.checkpoint import Checkpoint
    from trainer.checkpoints.store import CheckpointStore

logger = logging.getLogger(__name__)

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
        is_stopped_early: Somebody asked for it, or lost workers left a part undone.
        workers: What each worker did.
    """

    iteration: int
    samples: int
    seconds: float
    is_stopped_early: bool
    workers: tuple[WorkerTotals, ...]


def run_distributed(
    solver: Solver,
    plan: DistributedPlan,
    *,
    observer: Observer,
    net: NetDefinition | None = None,
    poll: Callable[[], Action] = lambda: Action.NONE,
    cluster: Cluster | None = None,
    store: CheckpointStore | None = None,
    checkpoint: Checkpoint | None = None,
) -> RunResult:
    """Train with several workers, and end as Caffe's `Solve` does.

    Tests run here, in the TEST phase, on the average or the centre. So do Caffe's snapshots: they
    hold rank 0's momentum in a synchronous run, and none in an asynchronous one. A checkpoint holds
    all that workers have; when some are lost whom Spark does not replace, the others are ended, and
    all go on from the latest.

    Args:
        solver: The driver's own. Its weights, histories and iteration are where the run starts, and
            what it has made when this returns.
        plan: What to do.
        observer: Hears of progress, exchanges and events.
        net: Definition that the solver was made from, if not the one that its settings name.
        poll: Asked several times a second what to do.
        cluster: Where the workers run; None for what the plan names.
        store: Where checkpoints go; None for what the plan names, or a folder for the time of the
            run if it names nothing and workers can be lost.
        checkpoint: One that the solver has been brought to, whose workers go on.

    Raises:
        TrainerError: The cluster cannot run the workers, or one of them failed; says which.
    """
    check_features(plan)
    definition = net or train_choice(solver.param).definition
    strategy = get_strategy(plan.strategy)(plan.options)
    with ExitStack() as stack:
        running = stack.enter_context(cluster or open_cluster(plan))
        if store is None:
            store = stack.enter_context(_store(plan, running))
        if store is not None and plan.checkpoints is None:
            plan = replace(plan, checkpoints=Checkpoints(store.uri))
        flat, center = solver.net.flat, strategy.center
        layout = Layout.of(flat.segments)
        facts = flat.data.numel(), layout, center, plan.num_workers, plan.servers
        file = stack.enter_context(center_file(*facts))
        solver.poll, solver.stopped_early = poll, False
        plan = _warm_up(solver, plan, strategy.warm_start)
        tally = Tally(plan, observer, solver.param.display)
        run = _Run(solver, plan, strategy, tally, running, store, file)
        return run.run(definition, checkpoint and Restart(checkpoint, plan))


@contextmanager
def _store(plan: DistributedPlan, cluster: Cluster) -> Iterator[CheckpointStore | None]:
    """Give the store that a plan names, or one for the time of the run."""
    if plan.checkpoints is not None:
        store = open_store(plan.checkpoints.uri, plan.checkpoints.keep)
        store.write_run({})
        yield store
    elif not cluster.may_lose_workers:
        yield None
    else:
        with tempfile.TemporaryDirectory(prefix="torrefy-checkpoints-") as folder:
            store = open_store(folder, 1)
            store.write_run({})
            yield store


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
    """One run, seen from the driver: one submission of its workers, or several."""

    def __init__(
        self,
        solver: Solver,
        plan: DistributedPlan,
        strategy: Strategy[Any, Any],
        tally: Tally,
        cluster: Cluster,
        store: CheckpointStore | None,
        file: CenterFile | None,
    ) -> None:
        self._solver, self._plan, self._strategy = solver, plan, strategy
        self._tally, self._cluster, self._file = tally, cluster, file
        size = solver.net.flat.data.numel()
        self._saver = None if store is None else Saver(store, plan, strategy, size)
        self._examiner = Examiner(solver, plan, tally)

    def run(self, net: NetDefinition, restart: Restart | None) -> RunResult:
        """Test, train, save."""
        started, examiner, plan = time.monotonic(), self._examiner, self._plan
        examiner.test_at_start()
        if not examiner.is_stopping and plan.start_iteration < plan.max_iter:
            self._train(net, restart)
        examiner.save_at_end()
        iteration = self._solver.iteration
        is_early = iteration < plan.max_iter
        if is_early:
            logger.info("Optimization stopped early.")
        seconds, workers = time.monotonic() - started, tuple(self._tally.workers)
        return RunResult(iteration, self._tally.samples, seconds, is_early, workers)

    def _train(self, net: NetDefinition, restart: Restart | None) -> None:
        """Submit the workers until they have ended, after a loss from the latest checkpoint."""
        if restart is None and self._saver is not None:
            self._saver.save(self._solver, [], [])  # a loss may come before the first checkpoint
        losses, desk = 0, self._desk(self._given(restart))
        while True:
            before = desk.center.worker_iterations
            submission = self._submission(desk)
            try:
                submission.run(self._tasks(net))
                break
            except LostWorkerError as error:
                given = self._after_loss(desk)
                if given is None:
                    raise
                losses = 1 if sum(given.iterations) > before else losses + 1
                if losses >= self._plan.task_attempts:
                    raise
                iteration = self._plan.progress(sum(given.iterations))
                logger.warning("%s. All workers go on from iteration %d", error, iteration)
                self._tally.tell("lost", message=str(error), resumed_at=iteration)
                desk = self._desk(given)
        if not self._strategy.is_synchronous:
            submission.load_center()

    def _after_loss(self, desk: Desk) -> Given | None:
        """Return what the next submission begins with; None if nothing has been saved."""
        if self._saver is None:
            return None
        if not self._strategy.is_synchronous:  # nothing is lost: the centre is here
            center = desk.center.snapshot()
            return replace(
                self._given(None),
                parameters=center.parameters,
                iterations=center.iterations,
                center_state=center.state,
            )
        latest = self._saver.latest()
        if latest is None:
            return None
        self._plan = replace(self._plan, start_iteration=latest.iteration)
        restore(self._solver, latest)
        return self._given(Restart(latest, self._plan))

    def _given(self, restart: Restart | None) -> Given:
        """Return what a submission begins with from where the driver's solver is.

        The histories are the solver's own: all workers that get them have begun before the first
        state comes back.
        """
        plan, solver = self._plan, self._solver
        if not self._strategy.is_synchronous:  # the centre has no momentum to be saved
            for slot in solver.history:
                if slot.any():  # zeros that nobody has written to take no memory
                    slot.zero_()
        size, slots = solver.net.flat.data.numel(), len(solver.history)
        given = Given(
            solver.net.flat.data.detach().cpu(),
            [slot.detach().cpu() for slot in solver.history],
            Layout.of(solver.net.flat.segments),
            [plan.share(rank, plan.start_iteration) for rank in range(plan.num_workers)],
        )
        if restart is None:
            return given
        return replace(
            given,
            iterations=restart.iterations,
            center_state=restart.center_state(size),
            deposit_of=lambda rank: restart.deposit_of(rank, size, slots),
        )

    def _desk(self, given: Given) -> Desk:
        self._tally.start(given.iterations)
        self._examiner.go_back(self._plan.progress(sum(given.iterations)))
        milestones, settings = self._examiner.milestones, self._strategy.center
        return Desk(self._plan, milestones, given, settings, self._saver, self._file)

    def _submission(self, desk: Desk) -> Submission:
        parts = self._plan, self._solver, desk, self._examiner, self._saver, self._tally
        return Submission(self._cluster, *parts, in_group=self._strategy.is_synchronous)

    def _tasks(self, net: NetDefinition) -> list[WorkerTask]:
        """Return each worker's task: the same settings, without what the driver does."""
        param = SolverParameter()
        param.CopyFrom(self._solver.param)
        for name in _DRIVER_FIELDS:
            param.ClearField(name)
        self._strategy.adapt(param)
        plan, milestones = self._plan, self._examiner.milestones
        return [WorkerTask(rank, plan, milestones, param, net) for rank in range(plan.num_workers)]
