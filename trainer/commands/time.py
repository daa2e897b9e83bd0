"""`torrefy time`: how long each layer takes, as `caffe time`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from prototxt_parser.build import build_for_state, data_specs
from solvers.feed import Feed
from trainer.caffe_log import log_lines
from trainer.commands.net_flags import add_net_flags, chosen_net
from trainer.data.feed import open_feed
from trainer.device import log_gpu, one_gpu
from trainer.errors import UsageError
from trainer.extensions import extensions_of
from trainer.timing import LayerTime, NetTimer

logger = logging.getLogger(__name__)


def add_parser(commands: Any) -> None:
    """Add `time` to the subcommands of `torrefy`."""
    parser = commands.add_parser(
        "time",
        help="time every layer, forward and backward",
        description="Run a net with random weights and log the mean time of each layer.",
        allow_abbrev=False,
    )
    parser.add_argument("--phase", default="TRAIN", help="TRAIN or TEST (default TRAIN)")
    add_net_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Time the net; returns the exit status."""
    if not args.model:
        raise UsageError("Need a model definition to time.")
    extensions_of(args).install()
    definition, state = chosen_net(args, args.model, args.phase)
    device = one_gpu(args.gpu)
    with log_lines(), ExitStack() as stack:
        log_gpu(device)
        feeds: dict[str, Feed] = {}
        for spec in data_specs(definition, state):
            feed = open_feed([spec], seed=0, data_dir=args.data)
            stack.callback(feed.close)
            feeds[spec.name] = feed
        shapes = {top: shape for feed in feeds.values() for top, shape in feed.shapes.items()}
        net = build_for_state(definition, state, input_shapes=shapes).to(device)
        timer = NetTimer(net, feeds, device)
        logger.info("Performing Forward")
        logger.info("Initial loss: %g", timer.forward())
        logger.info("Performing Backward")
        timer.backward()
        timer.reset()
        _benchmark(timer, args.iterations)
    return 0


def _benchmark(timer: NetTimer, iterations: int) -> None:
    logger.info("*** Benchmark begins ***")
    logger.info("Testing for %d iterations.", iterations)
    for number in range(1, iterations + 1):
        before = timer.total
        timer.forward()
        timer.backward()
        spent_ms = 1e3 * (timer.total - before)
        logger.info("Iteration: %d forward-backward time: %g ms.", number, spent_ms)
    _report(timer.times, iterations)
    logger.info("*** Benchmark ends ***")


def _report(times: Sequence[LayerTime], iterations: int) -> None:
    mean_ms = 1e3 / iterations
    logger.info("Average time per layer: ")
    for spent in times:
        logger.info("%10s\tforward: %g ms.", spent.name, spent.forward * mean_ms)
        logger.info("%10s\tbackward: %g ms.", spent.name, spent.backward * mean_ms)
    forward = sum(spent.forward for spent in times)
    backward = sum(spent.backward for spent in times)
    logger.info("Average Forward pass: %g ms.", forward * mean_ms)
    logger.info("Average Backward pass: %g ms.", backward * mean_ms)
    logger.info("Average Forward-Backward: %g ms.", (forward + backward) * mean_ms)
    logger.info("Total Time: %g ms.", 1e3 * (forward + backward))
