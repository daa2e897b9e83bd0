"""`torrefy test`: score trained weights, as `caffe test`."""

from __future__ import annotations

import argparse
import logging
from functools import partial
from itertools import zip_longest
from typing import Any

import torch

from prototxt_parser.net import Net
from prototxt_parser.weights import load_weights
from solvers.feed import Feed, open_net, zero_inputs
from solvers.log_format import weighted
from trainer.caffe_log import log_lines
from trainer.commands.net_flags import add_net_flags, chosen_net
from trainer.data.feed import open_feed
from trainer.device import log_gpu, one_gpu
from trainer.errors import UsageError
from trainer.extensions import extensions_of

logger = logging.getLogger(__name__)


def add_parser(commands: Any) -> None:
    """Add `test` to the subcommands of `torrefy`."""
    parser = commands.add_parser(
        "test",
        help="score trained weights",
        description="Run the net in its TEST phase and log every output of every batch, and means.",
        allow_abbrev=False,
    )
    parser.add_argument("--weights", metavar="FILE", help="caffemodel to score")
    add_net_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score; returns the exit status."""
    if not args.model:
        raise UsageError("Need a model definition to score.")
    if not args.weights:
        raise UsageError("Need model weights to score.")
    extensions_of(args).install()
    definition, state = chosen_net(args, args.model, "TEST")
    device = one_gpu(args.gpu)
    with log_lines():
        log_gpu(device)
        # A TEST net draws random numbers only if it asks for mirrors: the same ones every time.
        opener = partial(open_feed, seed=0, data_dir=args.data)
        net, feed = open_net(definition, state, opener)
        try:
            load_weights(net.to(device), args.weights)
            logger.info("Running for %d iterations.", args.iterations)
            _score(net, feed, args.iterations)
        finally:
            feed.close()
    return 0


@torch.no_grad()
def _score(net: Net, feed: Feed, iterations: int) -> None:
    """Log every element of the outputs of every batch, then the means.

    Source: caffe/tools/caffe.cpp, test.
    """
    zeros = zero_inputs(net)
    loss = 0.0
    sums: dict[str, list[float]] = {}
    for batch in range(iterations):
        outputs = net(zeros | dict(feed.next()))
        loss += float(net.loss)
        for name, blob in outputs.items():
            values = blob.reshape(-1).tolist()
            for value in values:
                logger.info("Batch %d, %s = %g", batch, name, value)
            sums[name] = list(map(sum, zip_longest(sums.get(name, []), values, fillvalue=0.0)))
    logger.info("Loss: %g", loss / iterations)
    weights = net.loss_weights
    for name, totals in sums.items():
        for total in totals:
            logger.info("%s = %s", name, weighted(total / iterations, weights.get(name, 0.0)))
