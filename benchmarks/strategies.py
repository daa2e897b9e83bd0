"""Final accuracy of cifar10_quick's full schedule: one process, and both strategies on Spark.

    python benchmarks/strategies.py --data data/cifar10 --runs runs/strategies

Both solver phases (4,000 iterations at 0.001, then 1,000 at 0.0001), two workers on a standalone
master that the script starts on loopback. `equal` counts the iterations of both workers together,
`per_worker` those of each, as in the papers. A run that finished is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from machine import report
from spark_standalone import standalone

from trainer.cli import train_main

PHASES = (("cifar10_quick_solver", ""), ("cifar10_quick_solver_lr1", "cifar10_quick_iter_4000"))
STRATEGIES = {
    "single": [],
    "sparknet": ["--strategy", "sparknet", "--sync-interval", "10"],
    "deepspark": ["--strategy", "deepspark", "--sync-interval", "10", "--moving-rate", "0.1"],
}
CASES = {
    "single": ("single", []),
    "sparknet_equal": ("sparknet", []),
    "deepspark_equal": ("deepspark", []),
    "sparknet_per_worker": ("sparknet", ["--per-worker"]),
    "deepspark_per_worker": ("deepspark", ["--per-worker"]),
}


def run_case(name: str, master: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train both phases of a case; return accuracy and seconds."""
    strategy, counting = CASES[name]
    out = args.runs / name
    result = out / "result.json"
    if result.exists():
        return dict(json.loads(result.read_text()))
    cluster = [] if strategy == "single" else ["--workers", "2", "--master", master]
    start = time.monotonic()
    for solver, state in PHASES:
        flags = [*STRATEGIES[strategy], *cluster, *counting]
        flags += ["--data", str(args.data), "--out", str(out), "--seed", str(args.seed)]
        if state:
            flags += ["--snapshot", str(out / f"{state}.solverstate")]
        status = train_main(["--solver", f"{solver}.prototxt", *flags])
        if status:
            sys.exit(f"{name}: train ended with status {status}")
    lines = (out / "cifar10_quick_metrics.jsonl").read_text().splitlines()
    tests = [record for record in map(json.loads, lines) if record["kind"] == "test"]
    figures = {
        "accuracy": tests[-1]["accuracy"],
        "iteration": tests[-1]["iteration"],
        "seconds": round(time.monotonic() - start),
    }
    result.write_text(json.dumps(figures))
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder made by torrefy data")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file to add the result to (JSON lines)")
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    args.data, args.runs = args.data.resolve(), args.runs.resolve()
    spark = args.runs / "spark"
    spark.mkdir(exist_ok=True)
    with standalone(spark) as cluster:
        figures = {name: run_case(name, cluster.master, args) for name in args.cases}
    report("strategies", {"seed": args.seed, "cases": figures}, args.out)


if __name__ == "__main__":
    main()
