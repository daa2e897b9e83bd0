"""Milliseconds of a worker's elastic exchange with the centre: in the driver, and in ranges.

    python benchmarks/exchange_speed.py --rounds 30

One worker in a process of its own, over loopback; the centre in the driver's process (0 servers) or
in one or two processes beside it; plain and over TLS; in float32 and, with error feedback, in
bfloat16. 0.6 MB are the parameters of cifar10_quick, 244 MB those of CaffeNet.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from machine import report

from trainer.compression import CompressedLink
from trainer.links import CenterLink, DriverLink, Move, Place
from trainer.parameter_server.address import Address
from trainer.parameter_server.center_file import center_file
from trainer.parameter_server.client import FlightLink
from trainer.parameter_server.desk import Desk, Given
from trainer.parameter_server.range_servers import range_servers
from trainer.parameter_server.ranged_link import RangedLink, Ranges
from trainer.parameter_server.service import serving
from trainer.plan import DistributedPlan, Milestones
from trainer.strategies import CenterSettings, DeepSparkOptions
from trainer.strategies.arithmetic import Layout

HOST = "127.0.0.1"
SIZES = {"0.6 MB": 150_000, "244 MB": 61_000_000}
TIMEOUT_S = 120.0


def work(
    address: Address, ranges: Ranges | None, size: int, dtype: str, rounds: int, out: Any
) -> None:
    """Be the worker: put the seconds of every exchange into `out`."""
    torch.set_num_threads(1)
    layout, own = Layout((slice(0, size),), ()), torch.rand(size)
    with ExitStack() as stack:
        link: DriverLink = stack.enter_context(closing(FlightLink(address, 0, TIMEOUT_S)))
        if ranges is not None:
            link = stack.enter_context(closing(RangedLink(link, ranges, 0, TIMEOUT_S)))
        link.start(Place(HOST, os.getpid()))
        center: CenterLink = link
        if dtype != "float32":
            center = CompressedLink(link, getattr(torch, dtype), layout)
        seconds = []
        for iteration in range(1, rounds + 3):
            started = time.perf_counter()
            center.exchange(own, Move("elastic", 0.1), iteration)
            seconds.append(time.perf_counter() - started)
        out.put(seconds[2:])


def measure(size: int, servers: int, encrypted: bool, dtype: str, rounds: int) -> float:
    """Return the median milliseconds of one case."""
    layout, settings = Layout((slice(0, size),), ()), CenterSettings()
    plan = DistributedPlan("deepspark", DeepSparkOptions(), 1, max_iter=1 << 30, servers=servers)
    given = Given(torch.rand(size), [], layout, [0])
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    with ExitStack() as stack:
        file = stack.enter_context(center_file(size, layout, settings, 1, servers))
        desk = Desk(plan, Milestones(0, 0), given, settings, file=file)
        address = stack.enter_context(serving(desk, HOST, encrypted=encrypted))
        waits = {"start_s": TIMEOUT_S, "wait_s": TIMEOUT_S}
        ranges = stack.enter_context(range_servers(file, HOST, encrypted=encrypted, **waits))
        worker = context.Process(target=work, args=(address, ranges, size, dtype, rounds, out))
        worker.start()
        seconds = out.get(timeout=600)
        worker.join()
    return round(1000 * statistics.median(seconds), 2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="exchanges per case")
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--out", type=Path, help="file to add the result to (JSON lines)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, dict[str, float]] = {}
    for size in args.sizes:
        figures[size] = {}
        for encrypted in (False, True):
            for dtype in ("float32", "bfloat16"):
                for servers in (0, 1, 2):
                    case = f"{'TLS' if encrypted else 'plain'}, {dtype}, {servers} servers"
                    ms = measure(SIZES[size], servers, encrypted, dtype, args.rounds)
                    figures[size][case] = ms
    report("exchange_speed", {"rounds": args.rounds, "median_ms": figures}, args.out)


if __name__ == "__main__":
    main()
