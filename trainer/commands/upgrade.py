"""`torrefy upgrade`: a net or a solver of an older form, written in the current one.

Does what Caffe's upgrade_net_proto_text, upgrade_net_proto_binary and upgrade_solver_proto_text do,
and says what they say; which of the three, the file tells. IN itself may be OUT: the new file takes
its place when it is complete.
"""

from __future__ import annotations

import argparse
import logging
import re
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from prototxt_parser.atomic import atomic_write
from prototxt_parser.errors import PrototxtError
from prototxt_parser.files import decode_text, find_model
from prototxt_parser.proto.caffe_pb2 import NetParameter, SolverParameter
from prototxt_parser.text import layer_positions, parse_text, print_text
from prototxt_parser.upgrade import trace_upgrade, upgrade_solver
from prototxt_parser.weights_hdf5 import is_hdf5
from trainer.caffe_log import log_lines
from trainer.extensions import add_extension_flags, extensions_of

logger = logging.getLogger(__name__)

_ONLY_IN_SOLVERS = set(SolverParameter.DESCRIPTOR.fields_by_name) - set(
    NetParameter.DESCRIPTOR.fields_by_name
)
_SOLVER_FIELD = re.compile(rf"^\s*(?:{'|'.join(sorted(_ONLY_IN_SOLVERS))})\s*[:{{<]", re.MULTILINE)


def add_parser(commands: Any) -> None:
    """Add `upgrade` to the subcommands of `torrefy`."""
    parser = commands.add_parser(
        "upgrade",
        help="write an old net, solver or caffemodel in the current form",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="IN", help="net (text or binary) or solver (text)")
    parser.add_argument("target", metavar="OUT", type=Path, help="the file to write")
    add_extension_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Upgrade; returns 0, or 1 if something of the old file has no current form.

    Raises:
        PrototxtError: The file is no net and no solver, or cannot be upgraded.
    """
    extensions_of(args).install()
    source = find_model(args.source)
    if is_hdf5(source):
        raise PrototxtError(f"{source}: an HDF5 file has no older form")
    try:
        data = source.read_bytes()
    except OSError as error:
        raise PrototxtError(f"{source}: cannot be read: {error.strerror}") from error
    with log_lines():
        text = decode_text(data)
        if text is None:
            return _upgrade_binary(data, source, args.target)
        if _SOLVER_FIELD.search(text) and not layer_positions(text):
            return _upgrade_solver_text(text, source, args.target)
        return _upgrade_net_text(text, source, args.target)


def _upgrade_binary(data: bytes, source: Path, target: Path) -> int:
    try:
        net = NetParameter.FromString(data)
    except DecodeError as error:
        raise _not_a_net(source) from error
    if not (net.layer or net.layers or net.input):
        raise _not_a_net(source)
    upgraded, status = _upgrade_net(net, source)
    _write(target, upgraded.SerializeToString(), "NetParameter binary")
    return status


def _upgrade_net_text(text: str, source: Path, target: Path) -> int:
    upgraded, status = _upgrade_net(parse_text(text, NetParameter(), str(source)), source)
    _write(target, print_text(upgraded).encode(), "NetParameter text")
    return status


def _upgrade_solver_text(text: str, source: Path, target: Path) -> int:
    solver = parse_text(text, SolverParameter(), str(source))
    upgraded = upgrade_solver(solver, str(source))
    if upgraded == solver:
        logger.error("File already in latest proto format: %s", source)
    _write(target, print_text(upgraded).encode(), "SolverParameter text")
    return 0


def _upgrade_net(net: NetParameter, source: Path) -> tuple[NetParameter, int]:
    """Return the upgraded net and the exit status."""
    upgrade = trace_upgrade(net, str(source))
    if not upgrade.is_needed:
        logger.error("File already in latest proto format: %s", source)
    if not upgrade.is_complete:
        logger.error("Encountered error(s) while upgrading prototxt; see details above.")
    return upgrade.net, int(not upgrade.is_complete)


def _write(target: Path, data: bytes, kind: str) -> None:
    with atomic_write(target) as file:
        file.write(data)
    logger.info("Wrote upgraded %s proto to %s", kind, target)


def _not_a_net(source: Path) -> PrototxtError:
    return PrototxtError(
        f"{source}: Failed to parse input binary file as NetParameter: it is damaged, cut short, "
        "or of another kind"
    )
