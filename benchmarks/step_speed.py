"""Images per second of a training step, with channels last and first in memory.

    python benchmarks/step_speed.py --net cifar10_quick.prototxt --threads 2

Random images; forward, backward and update. The two layouts take turns in one process, so that
their ratio holds on a machine whose speed varies.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from unittest import mock

import torch
from machine import report

import prototxt_parser.net
from prototxt_parser import build_net, find_model, read_net, read_solver
from prototxt_parser.net import Net
from solvers.updater import Updater

SHAPES = {"lenet": (64, 1, 28, 28), "cifar10": (100, 3, 32, 32), "google": (32, 3, 224, 224)}
SHAPES |= {"resnet20": (128, 3, 32, 32)}


def step(net: Net, updater: Updater, batch: dict[str, torch.Tensor]) -> None:
    """Run one iteration."""
    net.flat.grad.zero_()
    net(batch)
    net.backward()
    updater.update(0.001, 0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default="cifar10_quick.prototxt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each layout")
    parser.add_argument("--steps", type=int, default=5, help="steps per turn")
    parser.add_argument("--out", type=Path, help="file to add the result to (JSON lines)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    shape = next((s for n, s in SHAPES.items() if args.net.startswith(n)), (64, 3, 227, 227))
    batch = {"data": torch.randn(shape), "label": torch.randint(0, 10, (shape[0],)).float()}
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    net = build_net(read_net(args.net), "TRAIN", input_shapes=shapes, seed=1)
    solver = find_model(args.net.replace(".prototxt", "_solver.prototxt"))
    updater = Updater(read_solver(solver), net.flat)
    seconds = {"channels_last": 0.0, "channels_first": 0.0}
    step(net, updater, batch)
    for _ in range(args.rounds):
        for layout in seconds:
            layout_of = (
                prototxt_parser.net._fast_layout if layout == "channels_last" else torch.clone
            )
            with mock.patch.object(prototxt_parser.net, "_fast_layout", layout_of):
                step(net, updater, batch)
                start = time.perf_counter()
                for _ in range(args.steps):
                    step(net, updater, batch)
                seconds[layout] += time.perf_counter() - start
    images = args.rounds * args.steps * shape[0]
    speeds = {layout: round(images / value) for layout, value in seconds.items()}
    ratio = round(seconds["channels_first"] / seconds["channels_last"], 2)
    figures = {"net": args.net, "threads": args.threads, "images_per_s": speeds, "ratio": ratio}
    report("step_speed", figures, args.out)


if __name__ == "__main__":
    main()
