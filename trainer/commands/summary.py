"""`torrefy summary`: shapes, parameters, computation and memory of every layer of a net."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from prototxt_parser import Net
from prototxt_parser.build import build_for_state, data_specs
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape
from trainer.commands.net_flags import add_data_flag, add_state_flags, chosen_net
from trainer.errors import UsageError
from trainer.extensions import add_extension_flags, extensions_of
from trainer.input_shapes import input_shapes
from trainer.summary import LayerSummary, NetSummary, summarize

_CONVENTION = """A multiply-add is a product of an input and a weight, added up, in convolutions,
fully connected and recurrent layers. FLOPs are two for each of them, and one for every other sum,
product, comparison or function of a value. Both are of a forward pass of the whole batch. Memory
is that of float32 values without gradients; what is computed in place takes none."""
_HEADER = ("layer", "type", "top", "parameters", "multiply-adds", "FLOPs", "activations")
_TEXT_COLUMNS = 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `summary` to a command line."""
    parser = subparsers.add_parser(
        "summary",
        help="list a net's layers: shapes, parameters, FLOPs, memory",
        description=f"Lists a net's layers without running it. {_CONVENTION}",
        allow_abbrev=False,
    )
    parser.add_argument("net", metavar="NET", help="net prototxt, or the name of a shipped one")
    parser.add_argument(
        "--phase", choices=caffe_pb2.Phase.keys(), default="TEST", help="default: TEST"
    )
    add_state_flags(parser)
    parser.add_argument(
        "--input-shape",
        action="append",
        type=_named_shape,
        default=[],
        metavar="BLOB:N,C,H,W",
        help="shape of a blob that is fed or read from data; may be given again. Default: as the "
        "definition or the data say",
    )
    add_data_flag(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_extension_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table; returns the exit status.

    Raises:
        PrototxtError: The net cannot be read or built.
        UsageError: A shape is not known, or given for a blob that no layer is fed.
    """
    extensions_of(args).install()
    summary = summarize(_build(args))
    if args.json:
        print(json.dumps(_record(summary), indent=1))
    else:
        for line in _table(summary):
            print(line)
    return 0


def _build(args: argparse.Namespace) -> Net:
    (definition, state), given = chosen_net(args, args.net, args.phase), dict(args.input_shape)
    shapes = input_shapes(data_specs(definition, state), given, args.data)
    net = build_for_state(definition, state, input_shapes=shapes)
    fed = [top for step in net.steps if step.is_source for top in step.tops]
    for blob in given:
        if blob not in fed:
            raise UsageError(
                f"--input-shape {blob}: no layer is fed a blob of that name; those that are: "
                f"{', '.join(fed) or 'none'}"
            )
    return net


def _named_shape(text: str) -> tuple[str, Shape]:
    match = re.fullmatch(r"(.+):([1-9]\d*(?:,[1-9]\d*)*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"expected BLOB:N,C,H,W, such as data:1,3,224,224; received {text}"
        )
    return match[1], tuple(int(size) for size in match[2].split(","))


def _table(summary: NetSummary) -> list[str]:
    rows = [_HEADER, *(row for layer in summary.layers for row in _rows(layer))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    phase, cost = caffe_pb2.Phase.Name(summary.phase), summary.cost
    each = f" per item of a batch of {summary.batch}"
    lines = [f"{summary.name or 'net'}, {phase}, {len(summary.layers)} layers"]
    lines += [_line(row, widths) for row in rows]
    lines += [
        f"parameters     {summary.parameters:,}, {_megabytes(summary.parameter_bytes)}"
        + (f"; {summary.statistics:,} are statistics" if summary.statistics else ""),
        f"multiply-adds  {cost.multiply_adds:,}, {cost.multiply_adds // summary.batch:,}{each}",
        f"FLOPs          {cost.flops:,}, {cost.flops // summary.batch:,}{each}",
        f"activations    {_megabytes(summary.activation_bytes)}",
    ]
    unknown = sorted({layer.type for layer in summary.layers if layer.cost is None})
    return [*lines, *([f"not counted    {', '.join(unknown)}"] if unknown else [])]


def _rows(layer: LayerSummary) -> list[tuple[str, ...]]:
    """Return a line for the layer, and one for each top after the first."""
    tops = [f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in layer.tops] or [""]
    products = "?" if layer.cost is None else f"{layer.cost.multiply_adds:,}"
    flops = "?" if layer.cost is None else f"{layer.cost.flops:,}"
    numbers = (f"{layer.parameters:,}", products, flops, _megabytes(layer.activation_bytes))
    return [
        (layer.name, layer.type, tops[0], *numbers),
        *(("", "", top, "", "", "", "") for top in tops[1:]),
    ]


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        text.ljust(width) if column < _TEXT_COLUMNS else text.rjust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.2f} MB"


def _record(summary: NetSummary) -> dict[str, Any]:
    return {
        "name": summary.name,
        "phase": caffe_pb2.Phase.Name(summary.phase),
        "batch": summary.batch,
        "parameters": summary.parameters,
        "statistics": summary.statistics,
        "multiply_adds": summary.cost.multiply_adds,
        "flops": summary.cost.flops,
        "parameter_bytes": summary.parameter_bytes,
        "activation_bytes": summary.activation_bytes,
        "layers": [
            {
                "name": layer.name,
                "type": layer.type,
                "tops": dict(layer.tops),
                "parameters": layer.parameters,
                "multiply_adds": None if layer.cost is None else layer.cost.multiply_adds,
                "flops": None if layer.cost is None else layer.cost.flops,
                "activation_bytes": layer.activation_bytes,
            }
            for layer in summary.layers
        ],
    }
