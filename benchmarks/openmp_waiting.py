"""Speed of a training step with idle OpenMP threads that spin, and that sleep.

    python benchmarks/openmp_waiting.py

`OMP_WAIT_POLICY` ACTIVE and PASSIVE in turn, each in processes of their own: alone on the machine,
and beside one busy process per core. The product sets PASSIVE (trainer/__init__.py).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import report

STEP_SPEED = Path(__file__).with_name("step_speed.py")


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep `count` processes busy."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def images_per_s(policy: str, threads: int) -> float:
    """Measure once in a fresh process."""
    flags = ["--threads", str(threads), "--rounds", "4"]
    output = subprocess.run(
        [sys.executable, str(STEP_SPEED), *flags],
        env={**os.environ, "OMP_WAIT_POLICY": policy},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    return float(json.loads(output)["images_per_s"]["channels_last"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="file to add the result to (JSON lines)")
    args = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    for place, busy in (("alone", 0), ("beside busy processes", args.threads)):
        speeds: dict[str, list[float]] = {"ACTIVE": [], "PASSIVE": []}
        with busy_cores(busy):
            for _ in range(args.repeats):
                for policy, values in speeds.items():
                    values.append(images_per_s(policy, args.threads))
        medians = {policy: statistics.median(values) for policy, values in speeds.items()}
        medians["passive_over_active"] = round(medians["PASSIVE"] / medians["ACTIVE"], 2)
        figures[place] = medians
    report("openmp_waiting", {"images_per_s": figures}, args.out)


if __name__ == "__main__":
    main()
