"""What a run will do, in words, before it starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from prototxt_parser.proto.caffe_pb2 import SolverParameter
from solvers.settings import train_choice
from trainer.plan import DistributedPlan
from trainer.recipe import Recipe


def describe(
    recipe: Recipe, plan: DistributedPlan | None, device: str, start_iteration: int
) -> list[str]:
    """Return a line for each thing that a user wants to know; opens no data.

    Args:
        recipe: Net and solver.
        plan: How workers run it; None for one process.
        device: PyTorch device.
        start_iteration: Iterations that a snapshot has completed.
    """
    param, batch = recipe.param, recipe.batch_size
    net = recipe.net.path if recipe.net else train_choice(param).definition.path
    lines = [
        f"net        {net or '(inside the solver file)'}",
        f"solver     {recipe.solver_path}: {param.type}, lr_policy {param.lr_policy}, "
        f"base_lr {param.base_lr:g}",
        f"device     {device}",
    ]
    if plan is None:
        count = param.max_iter - start_iteration
        lines += [
            "strategy   single: one process, no JVM",
            f"run        {count} iterations, {count * batch} samples",
        ]
    else:
        lines += _describe_workers(plan, batch)
    if start_iteration:
        lines.append(f"start      from the snapshot at iteration {start_iteration}")
    if param.test_iter:
        lines.append(f"tests      every {param.test_interval} iterations")
    when = f"every {param.snapshot} iterations and " if param.snapshot else ""
    lines.append(f"snapshots  {param.snapshot_prefix}_iter_N.caffemodel, {when}at the end")
    if plan is not None:
        where = plan.checkpoints.uri if plan.checkpoints else "none"
        lines.append(f"checkpoints {where}")
    lines.append(f"metrics    {metrics_path(param)}")
    return lines


def _describe_workers(plan: DistributedPlan, batch: int) -> list[str]:
    total = sum(plan.worker_iterations)
    options = ", ".join(
        f"{field.name} {getattr(plan.options, field.name)}"
        for field in dataclasses.fields(plan.options)
        if getattr(plan.options, field.name) != field.default or field.name == "sync_interval"
    )
    strategy = f"{plan.strategy} ({options})" if options else plan.strategy
    where = plan.master or f"local Spark with {plan.num_workers} workers"
    counted = "per worker" if plan.per_worker else "of all workers together"
    shares = sorted(set(plan.worker_iterations))
    return [
        f"strategy   {strategy}, {plan.num_workers} workers on {where}",
        f"run        max_iter {plan.max_iter} {counted}: {'-'.join(map(str, shares))} iterations "
        f"per worker, {total * batch} samples, {plan.rounds} rounds",
    ]


def metrics_path(param: SolverParameter) -> Path:
    """Return where the metrics of a run go."""
    return Path(f"{param.snapshot_prefix}_metrics.jsonl")
