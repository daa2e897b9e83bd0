"""How a run is set up, as the first record of its metrics."""

from __future__ import annotations

import dataclasses
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from trainer.plan import IN_PROCESS, SINGLE, DistributedPlan
from trainer.recipe import Recipe


def images_per_iteration(recipe: Recipe, plan: DistributedPlan | None) -> int:
    """Return the images that one iteration of the run sees, by all workers that it counts."""
    return recipe.batch_size * (1 if plan is None else plan.num_workers // plan.stride)


def start_record(
    recipe: Recipe, plan: DistributedPlan | None, *, net: str, seed: int, device: str
) -> dict[str, Any]:
    """Return the record, as JSON values.

    Args:
        recipe: Net and solver.
        plan: How workers run it; None for one process.
        net: Name of the net.
        seed: Of the run.
        device: PyTorch device.

    Returns:
        net; strategy, `single` for one process; workers; max_iter; batch, the images of an
        iteration of the run; per_worker: iterations count those of each worker; options of the
        strategy; seed; device; started, by ISO 8601 in UTC; versions of python, torch and torrefy,
        and of pyspark if the workers run on it.
    """
    return {
        "net": net,
        "strategy": SINGLE if plan is None else plan.strategy,
        "workers": 1 if plan is None else plan.num_workers,
        "max_iter": recipe.param.max_iter,
        "batch": images_per_iteration(recipe, plan),
        "per_worker": plan is not None and plan.per_worker,
        "options": {} if plan is None else dataclasses.asdict(plan.options),
        "seed": seed,
        "device": device,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(plan),
    }


def _versions(plan: DistributedPlan | None) -> dict[str, str]:
    is_on_spark = plan is not None and plan.master != IN_PROCESS
    found = {"python": platform.python_version()}
    for package in ("torch", "torrefy", *(["pyspark"] if is_on_spark else [])):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a checkout; Spark's own pyspark under spark-submit
            found[package] = "unknown"
    return found
