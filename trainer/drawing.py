"""Nets as pictures: blobs, layers and what flows between them.

Source: caffe/python/caffe/draw.py.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prototxt_parser.atomic import atomic_write
from prototxt_parser.proto import caffe_pb2
from trainer.errors import TrainerError, UsageError

if TYPE_CHECKING:
    from pydot import Dot

RANKDIRS = ("TB", "LR", "BT", "RL")

_TEXT_FORMATS = ("dot", "gv")
_DEADLINE_S = 300.0
_LAYER_COLOUR, _NEURON_COLOUR, _BLOB_COLOUR = "#6495ED", "#90EE90", "#E0E0E0"
_TYPE_COLOURS = {"Convolution": "#FF5050", "Pooling": "#FF9900", "InnerProduct": "#CC33FF"}
_CONVOLUTIONS = ("Convolution", "Deconvolution")

_Windows = caffe_pb2.ConvolutionParameter | caffe_pb2.PoolingParameter


def draw_net_to_file(
    caffe_net: caffe_pb2.NetParameter,
    filename: str | Path,
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Draw a net into a file, in the format that its extension names.

    Args:
        caffe_net: The net, in its current form.
        filename: `.dot` and `.gv` are written as text; other formats need Graphviz's `dot`.
        rankdir: Where the net goes: LR from left to right, TB, BT, RL.
        phase: Only layers of this phase, by their rules; None for all.
        display_lrm: Whether learned layers show their lr_mult.

    Raises:
        UsageError: There is no such direction, or the file has no extension.
        TrainerError: pydot or Graphviz is missing, or refuses.
        WriteError: The file cannot be written.
    """
    ext = Path(filename).suffix.removeprefix(".")
    if not ext:
        raise UsageError(f"{filename}: the extension says the format: .png, .svg, .pdf or .dot")
    picture = draw_net(caffe_net, rankdir, ext, phase, display_lrm)
    with atomic_write(Path(filename)) as stream:
        stream.write(picture)


def draw_net(
    caffe_net: caffe_pb2.NetParameter,
    rankdir: str,
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,
) -> bytes:
    """Return the picture of a net in format `ext`; the rest is as for `draw_net_to_file`."""
    graph = get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm)
    source: bytes = graph.to_string().encode()
    return source if ext in _TEXT_FORMATS else _render(source, ext)


def get_pydot_graph(
    caffe_net: caffe_pb2.NetParameter,
    rankdir: str,
    label_edges: bool = True,
    phase: int | None = None,
    display_lrm: bool = False,
) -> Dot:
    """Return the graph of a net.

    `label_edges` is whether edges from a layer show its batch size or number of outputs; the rest
    is as for `draw_net_to_file`.

    Differs from Caffe: layers of one name stay apart, and a rule that names no phase holds in any.
    """
    pydot = _import_pydot()
    if rankdir not in RANKDIRS:
        raise UsageError(f"rankdir must be one of {', '.join(RANKDIRS)}; received {rankdir}")
    graph: Dot = pydot.Dot(_quoted(caffe_net.name or "Net"), graph_type="digraph", rankdir=rankdir)
    separator = " " if rankdir in ("TB", "BT") else "\n"
    layers = [layer for layer in caffe_net.layer if phase is None or _is_in_phase(layer, phase)]
    for blob in dict.fromkeys(blob for layer in layers for blob in [*layer.bottom, *layer.top]):
        graph.add_node(_node(pydot, f"blob_{blob}", blob, "octagon", _BLOB_COLOUR))
    for index, layer in enumerate(layers):
        node = f"layer_{index}"
        label = separator.join(_layer_text(layer, display_lrm))
        graph.add_node(_node(pydot, node, label, "box", _colour(layer)))
        for blob in layer.bottom:
            graph.add_edge(_edge(pydot, f"blob_{blob}", node, ""))
        for blob in layer.top:
            text = _edge_text(layer) if label_edges else ""
            graph.add_edge(_edge(pydot, node, f"blob_{blob}", text))
    return graph


def _import_pydot() -> Any:
    try:
        import pydot
    except ImportError:
        raise TrainerError(
            "drawing needs the package pydot, which is not installed: pip install 'torrefy[draw]'"
        ) from None
    return pydot


def _render(source: bytes, ext: str) -> bytes:
    program = shutil.which("dot")
    if program is None:
        raise TrainerError(
            f"a .{ext} picture needs Graphviz's program `dot`, which is not on the PATH: install "
            "graphviz, or write a .dot file and draw it elsewhere"
        )
    try:
        result = subprocess.run(
            [program, f"-T{ext}"],
            input=source,
            capture_output=True,
            timeout=_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TrainerError(
            f"`dot` has not drawn the net in {_DEADLINE_S:.0f} s; write a .dot file instead"
        ) from None
    if result.returncode:
        raise TrainerError(
            f"`dot -T{ext}` failed: {result.stderr.decode(errors='replace').strip()}"
        )
    return result.stdout


def _is_in_phase(layer: caffe_pb2.LayerParameter, phase: int) -> bool:
    if layer.include:
        return any(not rule.HasField("phase") or rule.phase == phase for rule in layer.include)
    return not any(rule.HasField("phase") and rule.phase == phase for rule in layer.exclude)


def _node(pydot: Any, name: str, label: str, shape: str, colour: str) -> Any:
    return pydot.Node(
        _quoted(name),
        label=_quoted(label),
        shape=shape,
        style="filled",
        fillcolor=_quoted(colour),
    )


def _edge(pydot: Any, source: str, target: str, label: str) -> Any:
    return pydot.Edge(_quoted(source), _quoted(target), label=_quoted(label))


def _colour(layer: caffe_pb2.LayerParameter) -> str:
    if len(layer.bottom) == len(layer.top) == 1 and layer.bottom[0] == layer.top[0]:
        return _NEURON_COLOUR
    return _TYPE_COLOURS.get(layer.type, _LAYER_COLOUR)


def _layer_text(layer: caffe_pb2.LayerParameter, display_lrm: bool) -> list[str]:
    """Return what a layer's node says, in parts."""
    kind, windows = layer.type, list[str]()
    if layer.type in _CONVOLUTIONS:
        windows = _window_text(layer.convolution_param)
    elif layer.type == "Pooling":
        pool = layer.pooling_param
        kind = f"{caffe_pb2.PoolingParameter.PoolMethod.Name(pool.pool)} {kind}"
        windows = ["global"] if pool.global_pooling else _window_text(pool)
    parts = [layer.name, f"({kind})", *windows]
    if display_lrm and layer.type in (*_CONVOLUTIONS, "InnerProduct"):
        parts.append(f"lr mult: {layer.param[0].lr_mult if layer.param else 1.0:g}")
    return parts


def _window_text(settings: _Windows) -> list[str]:
    names = (("kernel", "kernel_size", 1), ("stride", "stride", 1), ("pad", "pad", 0))
    return [
        f"{field.replace('_', ' ')}: {_sizes_text(settings, stem, field, default)}"
        for stem, field, default in names
    ]


def _sizes_text(settings: _Windows, stem: str, field: str, default: int) -> str:
    pair = (f"{stem}_h", f"{stem}_w")
    if any(settings.HasField(name) for name in pair):
        return "x".join(str(getattr(settings, name)) for name in pair)
    value: int | Sequence[int] = getattr(settings, field)
    values = [value] if isinstance(value, int) else list(value)
    return "x".join(map(str, values or [default]))


def _edge_text(layer: caffe_pb2.LayerParameter) -> str:
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in _CONVOLUTIONS:
        return str(layer.convolution_param.num_output)
    if layer.type == "InnerProduct":
        return str(layer.inner_product_param.num_output)
    return ""


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
