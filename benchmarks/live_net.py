"""One forward and backward pass of a net behind pycaffe, against the same net without it.

    python benchmarks/live_net.py --net cifar10_quick.prototxt --threads 1

The two take turns in one process, so that their ratio holds on a machine whose speed varies.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from machine import report

from prototxt_parser import Net, read_net
from prototxt_parser.build import build_for_state
from prototxt_parser.live_net import LiveNet
from prototxt_parser.random_source import RandomSource
from prototxt_parser.state import net_state

SHAPES = {"lenet": (64, 1, 28, 28), "cifar10": (100, 3, 32, 32)}


def run(net: Net, batch: dict[str, torch.Tensor]) -> float:
    """Run both passes; return seconds."""
    start = time.perf_counter()
    net.flat.grad.zero_()
    net(batch)
    net.backward()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default="cifar10_quick.prototxt")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, help="file to add the result to (JSON lines)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shape = next((s for n, s in SHAPES.items() if args.net.startswith(n)), (10, 3, 227, 227))
    batch = {"data": torch.randn(shape), "label": torch.randint(0, 10, (shape[0],)).float()}
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    definition, state = read_net(args.net), net_state("TRAIN", 0, [])
    nets = {
        kind.__name__: build_for_state(
            definition, state, input_shapes=shapes, random=RandomSource(1), net_type=kind
        )
        for kind in (Net, LiveNet)
    }
    seconds = dict.fromkeys(nets, 0.0)
    for turn in range(args.rounds + 1):
        for name, net in nets.items():
            taken = run(net, batch)
            seconds[name] += taken if turn else 0.0  # the first turn warms up
    ratio = round(seconds["LiveNet"] / seconds["Net"], 2)
    milliseconds = {name: round(1e3 * total / args.rounds, 1) for name, total in seconds.items()}
    figures = {"net": args.net, "threads": args.threads, "ms": milliseconds, "ratio": ratio}
    report("live_net", figures, args.out)


if __name__ == "__main__":
    main()
