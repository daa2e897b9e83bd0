"""Seconds from a prototxt file to a net that is ready to train.

    python benchmarks/build_speed.py --net caffenet.prototxt

Reading is finding, parsing and upgrading the file; building is filtering, wiring, shapes and
filling every parameter from its filler, for the training phase. The first round also pays for what
is loaded on first use.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from machine import report

from prototxt_parser import build_net, read_net

SIDES = {"lenet": 28, "cifar10": 32, "resnet20": 32, "resnet56": 32, "resnet110": 32}
SIDES |= {"googlenet": 224, "resnet50": 224, "resnet101": 224, "inception_v3": 299}


def seconds_to_build(net: str) -> tuple[float, float]:
    """Return seconds for reading and for building."""
    side = next((side for name, side in SIDES.items() if net.startswith(name)), 227)
    shapes = {"data": (1, 1 if side == 28 else 3, side, side), "label": (1,)}
    start = time.perf_counter()
    definition = read_net(net)
    read = time.perf_counter()
    build_net(definition, "TRAIN", input_shapes=shapes, seed=1)
    return read - start, time.perf_counter() - read


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default="caffenet.prototxt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="file to add the result to (JSON lines)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rounds = [seconds_to_build(args.net) for _ in range(args.rounds)]
    totals = [round(sum(seconds), 3) for seconds in rounds]
    figures = {
        "net": args.net,
        "threads": args.threads,
        "first_s": totals[0],
        "median_s": statistics.median(totals),
        "reading_s": round(statistics.median(read for read, _ in rounds), 3),
    }
    report("build_speed", figures, args.out)


if __name__ == "__main__":
    main()
