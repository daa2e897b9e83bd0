"""Going on from a checkpoint, with the workers that it was made of or with others."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, final

from torch import Tensor

from solvers import Solver
from trainer.links import Deposit
from trainer.plan import DistributedPlan
from trainer.saving import CENTER, STATE, file_of

if TYPE_CHECKING:  # it needs pyarrow, which a run without checkpoints does not
    from trainer.checkpoints.checkpoint import Checkpoint


def restore(solver: Solver, checkpoint: Checkpoint) -> None:
    """Bring the driver's solver to where a checkpoint was made.

    Raises:
        TrainerError, SolverError, PrototxtError: It is damaged, or of another net or solver.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = [name for name in checkpoint.names if name.startswith(STATE)]
        checkpoint.copy_to(Path(folder), names)
        solver.restore(Path(folder, f"{STATE}.solverstate"))


@final
class Restart:
    """What a run goes on from: a checkpoint, which may be of other workers than now.

    Args:
        checkpoint: The checkpoint.
        plan: The run that goes on.
    """

    def __init__(self, checkpoint: Checkpoint, plan: DistributedPlan) -> None:
        self._checkpoint, self._plan = checkpoint, plan
        values = checkpoint.values
        self._is_same = (
            values.get("strategy") == plan.strategy
            and values.get("workers") == plan.num_workers
            and values.get("per_worker") == plan.per_worker
        )

    @property
    def iterations(self) -> list[int]:
        """Iterations that each worker has behind it."""
        known = list(self._checkpoint.values.get("iterations", ()))
        if self._is_same and known:
            return known
        ranks = range(self._plan.num_workers)
        return [self._plan.share(rank, self._checkpoint.iteration) for rank in ranks]

    def deposit_of(self, rank: int, size: int, slots: int) -> Deposit | None:
        """Return what worker `rank` has deposited; None if this checkpoint has nothing for it.

        Args:
            rank: Which worker.
            size: Parameters of the net.
            slots: Histories of the solver.
        """
        from trainer.checkpoints.tensors import read_tensors

        deposits = self._checkpoint.values.get("deposits", ())
        if not self._is_same or rank >= len(deposits):
            return None
        count = deposits[rank]["size"] // size
        with self._checkpoint.reading(file_of(rank)) as stream:
            parameters, *rest = read_tensors(stream, count, size)
        return Deposit(parameters, rest[:slots], rest[slots:], deposits[rank]["values"])

    def center_state(self, size: int) -> list[Tensor]:
        """Return what the centre's moves had kept, shape (P,) each."""
        from trainer.checkpoints.tensors import read_tensors

        count = self._checkpoint.values.get("center_tensors", 0)
        if not self._is_same or not count:
            return []
        with self._checkpoint.reading(CENTER) as stream:
            return read_tensors(stream, count, size)
