"""One submission of the workers of a run to a cluster, attended to by the driver."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import final

from solvers import Action, Solver
from trainer.cluster.base import Cluster
from trainer.errors import LostWorkerError, TrainerError
from trainer.examiner import Examiner
from trainer.parameter_server.center import Snapshot
from trainer.parameter_server.desk import Desk
from trainer.plan import DistributedPlan
from trainer.saving import Saver
from trainer.tally import Tally
from trainer.task import WorkerTask
from trainer.worker import run_worker

logger = logging.getLogger(__name__)

_TICK_S = 0.2
_GRACE_S = 60.0  # workers give up on each other first, and say on whom
_JOIN_S = 30.0


@final
class Submission:
    """Runs the workers in another thread, and attends to them in the caller's.

    Args:
        cluster: Where they run.
        plan: The run.
        solver: The driver's own.
        desk: Where workers report.
        examiner: Tests and saves what they make.
        saver: Makes checkpoints; None for none.
        tally: Adds up what they report.
        in_group: They exchange together.
    """

    def __init__(
        self,
        cluster: Cluster,
        plan: DistributedPlan,
        solver: Solver,
        desk: Desk,
        examiner: Examiner,
        saver: Saver | None,
        tally: Tally,
        *,
        in_group: bool,
    ) -> None:
        self._cluster, self._plan, self._solver, self._desk = cluster, plan, solver, desk
        self._examiner, self._saver, self._tally = examiner, saver, tally
        self._in_group = in_group
        self._starts = [worker.attempts for worker in tally.workers]

    def run(self, tasks: Sequence[WorkerTask]) -> None:
        """Run the tasks to their end.

        Raises:
            LostWorkerError: Workers were lost, and the cluster does not replace them.
            TrainerError: A worker failed, in its own words; or the cluster cannot run them.
        """
        self._desk.roster.begin()
        run = _Background(
            lambda: self._cluster.run(run_worker, tasks, self._desk, in_group=self._in_group)
        )
        try:
            self._attend(run)
        except BaseException:
            self._desk.request_stop()
            self._desk.close()
            self._cluster.cancel()
            run.thread.join(_JOIN_S)
            raise
        finally:
            if self._saver is not None:
                self._saver.complete()
                self._saver.discard()
        if run.error is not None and not self._desk.roster.is_over_without_some:
            raise self._reason(run.error) from run.error

    def load_center(self) -> Snapshot:
        """Bring the driver's solver to the centre as it is."""
        snapshot = self._desk.center.snapshot(into=self._solver.net.flat.data)
        self._examiner.settle(self._plan.progress(sum(snapshot.iterations)))
        return snapshot

    def _attend(self, run: _Background) -> None:
        """Pass on wishes and take what comes, until the workers have ended and all is taken."""
        is_over = is_cancelled = False
        while not is_over:
            is_over = not run.thread.is_alive()
            self._obey(self._solver.poll())
            milestone = self._desk.next_milestone(0 if is_over else _TICK_S)
            records = self._desk.take_records()
            self._note_members()
            for record in records:
                self._tally.add(record)
            if milestone is not None:
                is_over = False
                self._examiner.load(milestone)
                milestone = None  # as large as the net and its histories
                self._reach()
            elif not is_over:
                self._watch()
                self._save()
            if self._desk.roster.is_over_without_some and not is_cancelled:
                is_cancelled = True
                self._cluster.cancel()  # the tasks of those that were dropped

    def _note_members(self) -> None:
        workers, members = self._tally.workers, self._desk.roster.members
        has_begun = any(worker.attempts for worker in workers)
        for worker, before, member in zip(workers, self._starts, members, strict=True):
            worker.host, worker.attempts = member.place.host, before + member.attempts
        if not has_begun and any(worker.attempts for worker in workers):
            self._tally.tell("begin")

    def _obey(self, action: Action) -> None:
        if action is Action.SNAPSHOT and not self._in_group:
            self.load_center()
            self._examiner.snapshot()
            return
        self._examiner.obey(action)
        if action is Action.STOP:
            self._desk.request_stop()
        elif action is Action.SNAPSHOT:
            self._desk.request_publication()

    def _reach(self) -> None:
        metric = self._examiner.reach()
        if self._examiner.is_stopping:
            self._desk.request_stop()
        if self._saver is None:
            return
        if self._in_group:
            self._saver.add_state(self._solver, metric)
        elif metric is not None or self._saver.is_due:
            self._save_center(self._saver, metric)
        self._saver.complete()

    def _save(self) -> None:
        """Make a checkpoint that is due, or complete one."""
        if self._saver is None:
            return
        if self._in_group:
            self._saver.complete()
        elif self._saver.is_due:
            self._save_center(self._saver, None)

    def _save_center(self, saver: Saver, metric: float | None) -> None:
        """Make a checkpoint of the centre; `metric` is of it a moment ago."""
        snapshot = self.load_center()
        saver.save(self._solver, snapshot.iterations, snapshot.state, metric)

    def _watch(self) -> None:
        """Look for workers that have fallen silent, and for a run that has been given up."""
        roster, start_s = self._desk.roster, self._plan.start_timeout_s
        if roster.given_up is not None:
            raise TrainerError(roster.given_up)
        for rank in roster.silent(self._plan.straggler_s, start_s):
            self._name(rank)
            if self._plan.replaces_stragglers:
                self._replace(rank)
        limit = self._plan.wait_timeout_s + _GRACE_S
        silent = roster.silent(limit, start_s)
        if silent:
            raise TrainerError(
                f"no word from {', '.join(map(roster.name, silent))} for {limit:g} s: its machine "
                "is down, the network is cut, or it could not be started; see Spark's log of the "
                "executors"
            )

    def _name(self, rank: int) -> None:
        roster = self._desk.roster
        member = roster.members[rank]
        if member.is_named:
            return
        member.is_named = True
        silence = time.monotonic() - member.heard
        logger.warning(
            "No word from %s (process %d) for %.0f s: stopped, swapping, or cut off from the "
            "network? The others %s",
            *(roster.name(rank), member.place.pid, silence),
            "wait for it" if self._in_group else "go on",
        )
        self._tally.tell("straggler", rank=rank, host=member.place.host, silent_s=silence)

    def _replace(self, rank: int) -> None:
        """End a silent worker; do without it if no other comes in its place."""
        roster, now = self._desk.roster, time.monotonic()
        member = roster.members[rank]
        if self._in_group:
            raise LostWorkerError(f"{roster.name(rank)} is silent, and was dropped")
        if member.killed is None:
            member.killed = now
            logger.warning("Ending %s, for another to be started", roster.name(rank))
            self._cluster.end_worker(rank)
        elif now - member.killed > self._plan.start_timeout_s:
            self._desk.drop(rank)
            self._tally.workers[rank].iterations = self._desk.center.iterations[rank]
            self._tally.tell("dropped", rank=rank, host=member.place.host)

    def _reason(self, error: Exception) -> TrainerError:
        roster = self._desk.roster
        own = roster.given_up or roster.own_words()
        if own is not None:
            return TrainerError(own)
        loss = roster.loss()
        if loss is not None:
            return LostWorkerError(loss)
        return error if isinstance(error, TrainerError) else TrainerError(str(error))


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
