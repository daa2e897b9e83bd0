"""`torrefy device-query`: what GPUs there are, as `caffe device_query`."""

from __future__ import annotations

import argparse
import logging
from typing import Any

import torch

from trainer.caffe_log import log_lines
from trainer.device import gpu_numbers

logger = logging.getLogger(__name__)


def add_parser(commands: Any) -> None:
    """Add `device-query` to the subcommands of `torrefy`."""
    parser = commands.add_parser(
        "device-query", aliases=["device_query"], help="describe the GPUs", allow_abbrev=False
    )
    parser.add_argument(
        "--gpu", default="", metavar="N[,N...]", help="numbers of GPUs, or all; default: none"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Log a property a line; returns the exit status."""
    numbers = gpu_numbers(args.gpu)
    with log_lines():
        logger.info("Querying GPUs %s", args.gpu)
        for number in numbers:
            _log_properties(number)
    return 0


def _log_properties(number: int) -> None:
    """Log what PyTorch knows of a device, under Caffe's names.

    Source: caffe/src/caffe/common.cpp, Caffe::DeviceQuery.
    """
    found = torch.cuda.get_device_properties(number)
    for name, value in (
        ("Device id:", number),
        ("Major revision number:", found.major),
        ("Minor revision number:", found.minor),
        ("Name:", found.name),
        ("Total global memory:", found.total_memory),
        ("Number of multiprocessors:", found.multi_processor_count),
    ):
        logger.info("%-30s %s", name, value)
