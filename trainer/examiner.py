"""The driver's model: what workers have made is tested and saved in it, as Caffe would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from solvers import Action, Solver
from trainer.parameter_server.desk import Milestone
from trainer.plan import DistributedPlan, Milestones
from trainer.tally import Tally


@final
class Examiner:
    """Tests and saves the states that a run reaches.

    Args:
        solver: The driver's own.
        plan: The run.
        tally: Hears how the tests went.

    Attributes:
        milestones: When tests and snapshots are due.
        is_stopping: Somebody wants the run to end.
        is_snapshot_wanted: Somebody wants a snapshot of the next state.
    """

    def __init__(self, solver: Solver, plan: DistributedPlan, tally: Tally) -> None:
        self._solver, self._plan, self._tally = solver, plan, tally
        test_interval = solver.param.test_interval if solver.tests else 0
        self.milestones = Milestones(test_interval, solver.param.snapshot)
        self._reached = start = solver.iteration
        # As Caffe's, which takes a multiple of `snapshot` for saved.
        is_saved = solver.param.snapshot and start % solver.param.snapshot == 0
        self._saved_at = start if is_saved else -1
        self.is_stopping, self.is_snapshot_wanted = solver.stopped_early, False

    def load(self, milestone: Milestone) -> None:
        """Bring the solver to a state of the run."""
        self._solver.net.flat.data.copy_(milestone.parameters)
        for slot, values in zip(self._solver.history, milestone.history, strict=False):
            slot.copy_(values)
        self.settle(milestone.iteration)

    def settle(self, iteration: int) -> None:
        """Note the iteration of the parameters that the solver has been given."""
        self._solver.iteration = iteration
        self._solver.settle_rate()

    def reach(self) -> float | None:
        """Save and test as Caffe would at the iteration of the state that was loaded.

        Returns:
            The result of the test, the higher the better; None if none was due.
        """
        before, self._reached = self._reached, self._solver.iteration
        if self.is_snapshot_wanted or self.milestones.is_snapshot(before, self._reached):
            self.is_snapshot_wanted = False
            self.snapshot()
        if self._reached >= self._plan.max_iter:
            self.save_at_end()
        if self.milestones.is_test(before, self._reached) and not self.is_stopping:
            return self.test()
        return None

    def test_at_start(self) -> None:
        """Test as Caffe does before its first iteration, and where a snapshot was resumed."""
        start, param = self._reached, self._solver.param
        interval = self.milestones.test_interval
        is_multiple = interval > 0 and start % interval == 0
        is_wanted = start > 0 or param.test_initialization
        if is_multiple and start < self._plan.max_iter and is_wanted and not self.is_stopping:
            self.test()

    def test(self) -> float | None:
        """Score all test nets.

        Returns:
            The accuracy of the first one, or its loss with a minus; None if it was interrupted.
        """
        self._solver.stopped_early = False
        results = self._solver.test_all()
        self.is_stopping = self.is_stopping or self._solver.stopped_early
        if not results:
            return None
        self._tally.center_loss = results[0].get("loss")
        return _metric(results[0])

    def snapshot(self) -> None:
        """Write Caffe's files."""
        self._solver.snapshot()
        self._saved_at = self._solver.iteration

    def save_at_end(self) -> None:
        """Write Caffe's files at the end, unless they are there."""
        if self._solver.param.snapshot_after_train and self._saved_at != self._solver.iteration:
            self.snapshot()

    def go_back(self, iteration: int) -> None:
        """Count what is due from an iteration at which the run goes on."""
        self._reached = iteration

    def obey(self, action: Action) -> None:
        """Note what somebody asks for."""
        self.is_stopping = self.is_stopping or action is Action.STOP
        self.is_snapshot_wanted = self.is_snapshot_wanted or action is Action.SNAPSHOT


def _metric(outputs: Mapping[str, float]) -> float | None:
    if "accuracy" in outputs:
        return outputs["accuracy"]
    return next((-value for name, value in outputs.items() if "loss" in name), None)
