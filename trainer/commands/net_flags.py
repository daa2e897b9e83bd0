"""The flags that commands share: which net, in which state, on which data and device."""

from __future__ import annotations

import argparse
from pathlib import Path

from prototxt_parser.definition import NetDefinition
from prototxt_parser.files import read_net
from prototxt_parser.proto.caffe_pb2 import NetState
from prototxt_parser.state import file_state
from trainer.commands.flags import positive
from trainer.extensions import add_extension_flags


def add_net_flags(parser: argparse.ArgumentParser) -> None:
    """Add Caffe's flags of `test` and `time`, and where data may lie."""
    parser.add_argument(
        "--model", metavar="FILE", help="net prototxt, or the name of a shipped one"
    )
    parser.add_argument(
        "--iterations", type=positive, default=50, metavar="N", help="batches (default 50)"
    )
    add_state_flags(parser)
    parser.add_argument(
        "--gpu", default="", metavar="N", help="number of the GPU, or all; default: the CPU"
    )
    add_data_flag(parser)
    add_extension_flags(parser)


def add_state_flags(parser: argparse.ArgumentParser) -> None:
    """Add level and stages."""
    parser.add_argument("--level", type=int, default=0, help="level of the net (default 0)")
    parser.add_argument("--stage", default="", metavar="S[,S...]", help="stages of the net")


def add_data_flag(parser: argparse.ArgumentParser) -> None:
    """Add where data may lie."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="where to look for databases and mean files that are not where the net says",
    )


def chosen_net(
    args: argparse.Namespace, name: str | Path, phase: str
) -> tuple[NetDefinition, NetState]:
    """Return the net called `name`, and the state that the flags and its file ask for."""
    definition = read_net(name)
    stages = [stage for stage in args.stage.split(",") if stage]
    return definition, file_state(definition, phase, args.level, stages)
