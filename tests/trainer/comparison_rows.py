"""Rows of a comparison as its runner writes them, made up."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

ITERATIONS, BATCH = 1000, 100
MACHINE = {"processor": "Made-up 1", "cores": 2, "memory_gb": 24, "system": "Linux 6"}
VERSIONS = {"torrefy": "0.1", "python": "3.11", "torch": "2.13", "pyspark": "4.3", "java": "17"}


def make_row(
    strategy: str = "single",
    workers: int = 1,
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 1,
    values: Sequence[float] = (0.1, 0.5, 0.6),
    seconds: float = 60.0,
    **changes: Any,
) -> dict[str, Any]:
    """Return a row whose tests are `values`, evenly over the run; losses are 2.5 - 2 value."""
    options = dict(options or {})
    last = len(values) - 1
    samples = ITERATIONS * BATCH
    parts = [name if value is True else f"{name} {value}" for name, value in options.items()]
    is_single = strategy == "single"
    return {
        "run": "-".join([strategy, str(workers), *parts]) + f"/seed{seed}",
        "strategy": strategy,
        "workers": workers,
        "options": options,
        "label": "single" if is_single else ", ".join([strategy, f"{workers} workers", *parts]),
        "seed": seed,
        "per_worker": False,
        "net": "cifar10_quick.prototxt",
        "solver": "cifar10_quick_solver.prototxt",
        "iterations": ITERATIONS,
        "batch": BATCH,
        "samples": samples,
        "status": "finished",
        "error": None,
        "metric": "accuracy",
        "final": values[-1],
        "tests": [
            {
                "iteration": ITERATIONS * at // last,
                "samples": samples * at // last,
                "seconds": seconds * at / last,
                "accuracy": value,
                "loss": 2.5 - 2 * value,
            }
            for at, value in enumerate(values)
        ],
        "train": [
            {
                "iteration": ITERATIONS * at // 10,
                "samples": samples * at // 10,
                "seconds": seconds * at / 10,
                "loss": 2.3 * math.exp(-at / 10),
            }
            for at in range(1, 11)
        ],
        "seconds": seconds,
        "start_s": 1.0 if is_single else 11.0,
        "exchanges": None if is_single else make_exchanges(),
        "machine": MACHINE,
        "versions": VERSIONS,
        "started": "2026-11-30T08:00:00Z",
        "other_load": 0.02,
        **changes,
    }


def make_exchanges(
    compute_s: float = 90.0, exchange_s: float = 10.0, staleness: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Return what a row says of its exchanges."""
    staleness = dict(staleness or {"0": 100})
    count = sum(staleness.values())
    return {
        "count": count,
        "compute_s": compute_s,
        "exchange_s": exchange_s,
        "sent_bytes": 58_000_000,
        "received_bytes": 58_000_000,
        "staleness_mean": sum(int(stale) * n for stale, n in staleness.items()) / count,
        "staleness_max": max(map(int, staleness)),
        "staleness": staleness,
    }


def make_failed(strategy: str, workers: int, seed: int, error: str) -> dict[str, Any]:
    """Return the row of a run that failed: it has no figures."""
    row = make_row(strategy, workers, seed=seed, status="failed", error=error)
    kept = ("run", "strategy", "workers", "options", "label", "seed", "per_worker", "net", "solver")
    return {name: row[name] for name in (*kept, "iterations", "status", "error", "machine")}


def make_study(seeds: int = 3, *, small: bool = False) -> list[dict[str, Any]]:
    """Return rows like those of a study of seven strategies, as noisy as real ones."""
    chance = random.Random(7)
    variants: list[tuple[str, dict[str, Any]]] = [("sync", {}), ("sparknet", {"sync_interval": 10})]
    if not small:
        variants += [
            ("sparknet", {"sync_interval": 50}),
            ("deepspark", {"sync_interval": 10, "moving_rate": 0.1}),
            ("deepspark", {"sync_interval": 50, "moving_rate": 0.1}),
            ("deepspark", {"sync_interval": 10, "moving_rate": 0.1, "adaptive_period": True}),
            ("easgd", {"sync_interval": 10}),
            ("downpour", {"n_push": 5, "n_fetch": 5}),
            ("diloco", {"sync_interval": 100}),
        ]
    cases = [("single", 1, {})]
    cases += [(name, workers, options) for name, options in variants for workers in (2, 4)]
    return [
        _noisy(chance, number, *case, seed)
        for seed in range(1, seeds + 1)
        for number, case in enumerate(cases)
    ]


def _noisy(
    chance: random.Random,
    number: int,
    strategy: str,
    workers: int,
    options: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    top = 0.62 - 0.012 * (number % 7) + chance.gauss(0, 0.004)
    values = [0.1] + [
        top * (1 - math.exp(-at / 3)) / (1 - math.exp(-10 / 3)) + chance.gauss(0, 0.006)
        for at in range(1, 11)
    ]
    is_stale = strategy in ("deepspark", "downpour")
    staleness = {
        str(stale): round(400 * math.exp(-abs(stale - workers + 1))) + 1
        for stale in range(3 * workers)
    }
    return make_row(
        strategy,
        workers,
        options,
        seed=seed,
        values=values,
        seconds=(70 - 4 * (number % 9) - 6 * (workers > 1)) * chance.uniform(0.97, 1.03),
        exchanges=None
        if strategy == "single"
        else make_exchanges(
            90, chance.uniform(2, 40), staleness if is_stale else {"0": 100 // workers}
        ),
    )
