"""Final test accuracy of a solver file, run to its end.

python benchmarks/accuracy.py --solver lenet_solver.prototxt --data DATA --runs RUN
torrefy data cifar10 --pad 4 --out DATA
python benchmarks/accuracy.py --solver resnet20_hour_solver.prototxt --data DATA --runs RUN
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from machine import report

from trainer.cli import train_main


def main() -> None:
    """Train, and print accuracy and seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--solver", default="lenet_solver.prototxt")
    parser.add_argument("--data", type=Path, required=True, help="folder made by torrefy data")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file to add the result to (JSON lines)")
    args = parser.parse_args()
    start = time.monotonic()
    flags = ["--data", str(args.data), "--out", str(args.runs), "--seed", str(args.seed)]
    status = train_main(["--solver", args.solver, *flags])
    if status:
        sys.exit(status)
    (metrics,) = args.runs.glob("*_metrics.jsonl")
    lines = metrics.read_text().splitlines()
    last = [record for record in map(json.loads, lines) if record["kind"] == "test"][-1]
    seconds = round(time.monotonic() - start)
    figures = {"accuracy": last["accuracy"], "iteration": last["iteration"], "seconds": seconds}
    report("accuracy", {"solver": args.solver, "seed": args.seed, **figures}, args.out)


if __name__ == "__main__":
    main()
