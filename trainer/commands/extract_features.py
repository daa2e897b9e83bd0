"""`torrefy extract-features`: blobs of a net into databases."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prototxt_parser.files import read_net
from prototxt_parser.net import Net
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.state import file_state
from prototxt_parser.weights import load_weights
from solvers.feed import Feed, open_net
from trainer.caffe_log import log_lines
from trainer.commands.flags import positive
from trainer.commands.net_flags import add_data_flag
from trainer.data.database import BACKENDS, DatabaseWriter, new_database
from trainer.data.feed import open_feed
from trainer.device import one_gpu
from trainer.errors import UsageError
from trainer.extensions import add_extension_flags, extensions_of

logger = logging.getLogger(__name__)

_LOG_INTERVAL = 1000
_MOST_AXES = 4  # a Datum, with one axis for the images, has no more


def add_parser(commands: Any) -> None:
    """Add `extract-features` to the subcommands of `torrefy`."""
    parser = commands.add_parser(
        "extract-features",
        help="put blobs of a trained net into databases",
        description="Run NUM_BATCHES batches through the net in its TEST phase, and write what each"
        " BLOB holds for every image into the new database at its place in the list of DBs.",
        allow_abbrev=False,
    )
    parser.add_argument("weights", metavar="WEIGHTS", help="caffemodel")
    parser.add_argument("net", metavar="NET", help="prototxt with data layers")
    parser.add_argument("blobs", metavar="BLOB[,BLOB...]")
    parser.add_argument("databases", metavar="DB[,DB...]")
    parser.add_argument("batches", type=positive, metavar="NUM_BATCHES")
    parser.add_argument("backend", choices=BACKENDS, metavar="DB_TYPE", help="lmdb or leveldb")
    parser.add_argument("mode", nargs="?", choices=("CPU", "GPU"), default="CPU")
    parser.add_argument("device", nargs="?", type=_device_number, default=0, metavar="DEVICE_ID")
    add_data_flag(parser)
    add_extension_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Extract the features; returns the exit status."""
    blobs, targets = args.blobs.split(","), args.databases.split(",")
    if len(blobs) != len(targets):
        raise UsageError(
            "the number of blob names and dataset names must be equal; received"
            f" {len(blobs)} blobs and {len(targets)} databases"
        )
    if len({os.path.realpath(target) for target in targets}) < len(targets):
        raise UsageError(f"expected a database of its own for every blob; received {targets}")
    extensions_of(args).install()
    device = one_gpu(str(args.device) if args.mode == "GPU" else "")
    definition = read_net(args.net)
    with log_lines(), ExitStack() as opened:
        logger.info("Using GPU" if args.mode == "GPU" else "Using CPU")
        # A TEST net draws random numbers only if it asks for mirrors: the same ones every time.
        opener = partial(open_feed, seed=0, data_dir=args.data)
        net, feed = open_net(definition, file_state(definition, "TEST"), opener)
        opened.callback(feed.close)
        load_weights(net.to(device), args.weights)
        _check_blobs(net, blobs, args.net)
        writers = []
        for target in targets:
            logger.info("Opening dataset %s", target)
            writers.append(opened.enter_context(new_database(Path(target), args.backend)))
        _extract(net, feed, args.batches, list(zip(blobs, writers, strict=True)))
    for blob, target, writer in zip(blobs, targets, writers, strict=True):
        print(f"{target}: {writer.count} features of {blob}")
    return 0


def _check_blobs(net: Net, names: Sequence[str], file: str) -> None:
    for name in names:
        shape = net.blob_shapes.get(name)
        if shape is None:
            raise UsageError(
                f"Unknown feature blob name {name} in the network {file}; it has"
                f" {', '.join(sorted(net.blob_shapes))}"
            )
        if not 1 <= len(shape) <= _MOST_AXES:
            raise UsageError(f"{name}: expected a blob of 1 to {_MOST_AXES} axes; it has {shape}")


@torch.no_grad()
def _extract(
    net: Net, feed: Feed, batches: int, outputs: Sequence[tuple[str, DatabaseWriter]]
) -> None:
    """Run the net and write its blobs.

    Source: BVLC/caffe tools/extract_features.cpp, feature_extraction_pipeline.
    """
    logger.info("Extracting Features")
    counts = [0] * len(outputs)
    for _ in range(batches):
        net(feed.next())
        for number, (name, writer) in enumerate(outputs):
            for feature in net.blobs[name].float().cpu():
                writer.put(b"%010d" % counts[number], _datum(feature).SerializeToString())
                counts[number] += 1
                if counts[number] % _LOG_INTERVAL == 0:
                    _log_count(name, counts[number])
    for (name, _), count in zip(outputs, counts, strict=True):
        if count % _LOG_INTERVAL:
            _log_count(name, count)
    logger.info("Successfully extracted the features!")


def _log_count(name: str, count: int) -> None:
    logger.info("Extracted features of %d query images for feature blob %s", count, name)


def _datum(feature: torch.Tensor) -> caffe_pb2.Datum:
    """Return one item of a blob; axes that the blob lacks are of size 1."""
    channels, height, width = (*feature.shape, 1, 1, 1)[: _MOST_AXES - 1]
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width)
    datum.float_data.extend(feature.reshape(-1).tolist())
    return datum


def _device_number(text: str) -> int:
    """Return the GPU's number: bare, or as Caffe's documentation has it, `DEVICE_ID=0`."""
    number = text.removeprefix("DEVICE_ID=")
    if not number.isdecimal():
        raise argparse.ArgumentTypeError(f"expected the number of a GPU; received {text}")
    return int(number)
