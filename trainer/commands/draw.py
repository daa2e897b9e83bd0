"""`torrefy draw`: a picture of a net."""

from __future__ import annotations

import argparse
from pathlib import Path

from prototxt_parser import read_net
from prototxt_parser.proto import caffe_pb2
from trainer.drawing import RANKDIRS, draw_net_to_file
from trainer.extensions import add_extension_flags, extensions_of

_PHASES = {"TRAIN": caffe_pb2.TRAIN, "TEST": caffe_pb2.TEST, "ALL": None}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `draw` to a command line."""
    parser = subparsers.add_parser(
        "draw", help="draw a net", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("net", metavar="NET", help="net prototxt, or the name of a shipped one")
    parser.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="picture to write; its extension says the format. All but .dot and .gv need Graphviz",
    )
    parser.add_argument(
        "--rankdir",
        choices=RANKDIRS,
        default="LR",
        help="direction: from left to right, top to bottom … (default: LR)",
    )
    parser.add_argument(
        "--phase", choices=_PHASES, default="ALL", help="layers of which phase (default: ALL)"
    )
    parser.add_argument(
        "--display-lrm", action="store_true", help="show the lr_mult of learned layers"
    )
    add_extension_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw; returns the exit status.

    Raises:
        PrototxtError: The net cannot be read.
        TrainerError: pydot or Graphviz is missing.
    """
    extensions_of(args).install()
    net = read_net(args.net).param
    draw_net_to_file(net, args.out, args.rankdir, _PHASES[args.phase], args.display_lrm)
    print(f"Drawing net to {args.out}")
    return 0
