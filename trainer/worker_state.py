"""What a worker begins with, and what it hands over for a checkpoint."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from solvers import Solver
from solvers.feed import FeedOpener
from solvers.snapshots import position_values, restore_position
from trainer.data.feed import open_feed
from trainer.errors import TrainerError
from trainer.links import Start
from trainer.plan import DistributedPlan
from trainer.strategies import Strategy
from trainer.task import WorkerTask


def open_solver(task: WorkerTask, start: Start) -> Solver:
    """Return a worker's solver where its run begins, or goes on."""
    plan = task.plan
    solver = Solver(
        task.param,
        task.open_feed or _files(task),
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
        solver.iteration = start.iteration - iterations_ahead(plan, task.rank)
        solver.settle_rate()
    if start.values is not None:
        restore_position(solver, start.values, f"the checkpoint of worker {task.rank}")
    elif start.iteration:
        solver.feed.skip(start.iteration * solver.param.iter_size)
    return solver


def restore_strategy(strategy: Strategy[Any, Any], start: Start) -> None:
    """Copy what a checkpoint has of a strategy into it, after its `start`.

    Raises:
        TrainerError: The checkpoint is of another strategy.
    """
    if start.values is None:
        return
    own = strategy.state()
    if len(own) != len(start.extra):
        raise TrainerError(
            f"the checkpoint holds {len(start.extra)} tensors of its strategy; this one keeps "
            f"{len(own)}: resume with the strategy that wrote it"
        )
    for tensor, saved in zip(own, start.extra, strict=True):
        tensor.copy_(saved)


def to_deposit(
    solver: Solver, strategy: Strategy[Any, Any]
) -> tuple[Mapping[str, Any], list[Tensor]]:
    """Return the values and tensors of `DriverLink.deposit`."""
    tensors = [solver.net.flat.data, *solver.history, *strategy.state()]
    return position_values(solver), tensors


def iterations_ahead(plan: DistributedPlan, rank: int) -> int:
    """Return how far a worker's iterations are ahead of its solver's: 0 or 1.

    A run that goes on where the shares were uneven gives all solvers the same iteration, so that
    all have the same learning rate.
    """
    start = plan.start_iteration
    return plan.share(rank, start) - start // plan.stride


def batch_size(solver: Solver) -> int:
    """Return the images of a batch; 0 for a net that reads no data."""
    return next((shape[0] for shape in solver.feed.shapes.values()), 0)


def _files(task: WorkerTask) -> FeedOpener:
    plan = task.plan
    return partial(
        open_feed,
        seed=plan.seed,
        rank=task.rank,
        world_size=plan.num_workers,
        data_dir=plan.data_dir,
    )


def _device(name: str, rank: int) -> str:
    if name != "cuda":
        return name
    if not torch.cuda.is_available():
        raise TrainerError(f"no GPU that PyTorch can use on {socket.gethostname()}")
    return f"cuda:{rank % torch.cuda.device_count()}"
