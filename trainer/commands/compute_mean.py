"""`torrefy compute-mean`: the mean image of a database."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np

from trainer.caffe_log import log_lines
from trainer.data.database import BACKENDS
from trainer.data.mean_file import compute_mean, write_mean

logger = logging.getLogger(__name__)


def add_parser(commands: Any) -> None:
    """Add `compute-mean` to the subcommands of `torrefy`."""
    parser = commands.add_parser(
        "compute-mean",
        help="mean image of a database",
        description="Compute the mean of all images of a database, and log the mean of every"
        " channel.",
        allow_abbrev=False,
    )
    parser.add_argument("database", type=Path, metavar="INPUT_DB")
    parser.add_argument(
        "output", type=Path, nargs="?", metavar="OUTPUT_FILE", help="mean file to write"
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, default="lmdb", help="kind of database (default lmdb)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compute, write and log the mean; returns the exit status."""
    with log_lines():
        mean = compute_mean(args.database, args.backend)
        if args.output is not None:
            logger.info("Write to %s", args.output)
            write_mean(args.output, mean)
        logger.info("Number of channels: %d", len(mean))
        for channel, plane in enumerate(mean):
            value = plane.sum(dtype=np.float64) / plane.size
            logger.info("mean_value channel [%d]: %g", channel, value)
    return 0
