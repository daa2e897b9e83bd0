"""Curves as pictures, by matplotlib; its global state (`pyplot`) is left alone.

Raises:
    TrainerError: On import, if matplotlib is not installed.
"""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prototxt_parser.atomic import atomic_write
from trainer.errors import TrainerError, UsageError
from trainer.plotting.curves import Curve, Panel
from trainer.plotting.records import printable

try:
    from matplotlib import rc_context
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter
except ImportError:
    raise TrainerError(
        "drawing curves needs the package matplotlib, which is not installed: "
        "pip install 'torrefy[plot]'"
    ) from None

FORMATS = (".png", ".svg")

# Okabe and Ito's colours, which the colour-blind tell apart, but for the yellow one. Their number
# and that of the dashes have no common factor, so that 35 curves differ.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_DASHES: tuple[Any, ...] = (
    *("solid", (0, (5, 1.5)), (0, (1.2, 1.2))),
    *((0, (6, 1.5, 1.2, 1.5)), (0, (3, 1, 1.2, 1, 1.2, 1))),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GREY = "#555555"
_MARKED = 30  # a curve of at most so many points shows them

_WIDTH, _PANEL_HEIGHT, _DPI = 8.0, 2.9, 150
_LEGEND_LETTERS, _KEY_LETTERS = 94, 10  # in a row as wide as the picture; for a key and its gaps
_LABEL_LETTERS = 80  # in a line of a label
_ROW_HEIGHT = 0.22
# Text stays text, and what is drawn twice is the same to the byte.
_SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "torrefy", "font.size": 10.0}


def draw_panels(panels: Sequence[Panel], title: str | None = None) -> Figure:
    """Return a figure of panels under each other, which share x, with one legend for all."""
    entries = _legend_entries([curve for panel in panels for curve in panel.curves])
    lines = max(_legend_text(curve).count("\n") + 1 for curve in entries)
    legend_height = _ROW_HEIGHT * lines * math.ceil(len(entries) / _legend_columns(entries))
    size = (_WIDTH, _PANEL_HEIGHT * len(panels) + legend_height + (0.9 if title else 0.6))
    with rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08))
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        axes = [each for each in grid[:, 0] if isinstance(each, Axes)]
        for each, panel in zip(axes, panels, strict=True):
            each.set_ylabel(printable(panel.y_label), parse_math=False)
            note = each.set_title(printable(panel.note), loc="right", fontsize=8, pad=3)
            note.set(color=_GREY, parse_math=False)
            if panel.is_log:
                each.set_yscale("log")
            else:
                each.ticklabel_format(axis="y", useOffset=False)
            draw_curves(each, panel.curves)
        axes[-1].set_xlabel(panels[-1].x_label)
        figure.align_ylabels(axes)
        if title:
            figure.suptitle(printable(title), fontweight="bold", parse_math=False)
        _add_legend(figure, entries)
    return figure


def draw_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    """Draw curves over a light grid, with what is shaded around them and what they smooth."""
    axes.grid(color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(color="#999999", labelcolor="#333333")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 3, 5, 10]))
    axes.margins(x=0.02)
    for curve in curves:
        colour = _COLOURS[curve.style % len(_COLOURS)]
        if curve.low is not None and curve.high is not None:
            axes.fill_between(
                curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0, zorder=1.5
            )
        if curve.raw is not None:
            axes.plot(curve.x, curve.raw, color=colour, alpha=0.28, linewidth=0.8, zorder=1.8)
        axes.plot(curve.x, curve.y, **_look(curve))


def save(figure: Figure, path: Path) -> None:
    """Write a figure, in the format that the file's ending names.

    The same figure gives the same bytes, so that a committed picture changes only with what it
    shows.

    Raises:
        UsageError: The ending is not one of `FORMATS`.
        WriteError: The file cannot be written.
    """
    check_format(path)
    ending = path.suffix.lower().removeprefix(".")
    metadata = {"svg": {"Date": None, "Creator": "torrefy"}, "png": {"Software": "torrefy"}}
    with atomic_write(path) as stream, rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it shows as a box
        figure.savefig(
            stream, format=ending, dpi=_DPI, metadata=metadata[ending], facecolor="white"
        )


def check_format(path: Path) -> None:
    """Refuse a file whose ending names no format.

    Raises:
        UsageError: It is not one of `FORMATS`.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"{path}: the ending says the format: expected {' or '.join(FORMATS)}; received "
            f"{path.suffix or 'none'}"
        )


def _legend_entries(curves: Sequence[Curve]) -> list[Curve]:
    """Return a curve of each label, by style; one that shows its points if there is one."""
    by_length = sorted(curves, key=lambda curve: len(curve.x), reverse=True)
    entries = {curve.label: curve for curve in by_length}
    return sorted(entries.values(), key=lambda curve: curve.style)


def _legend_columns(entries: Sequence[Curve]) -> int:
    widest = min(max(len(curve.label) for curve in entries), _LABEL_LETTERS)
    return min(len(entries), _LEGEND_LETTERS // (widest + _KEY_LETTERS))


def _legend_text(curve: Curve) -> str:
    return textwrap.fill(printable(curve.label), _LABEL_LETTERS)


def _add_legend(figure: Figure, entries: Sequence[Curve]) -> None:
    legend = figure.legend(
        handles=[Line2D([], [], **_look(curve)) for curve in entries],
        labels=[" " for _ in entries],
        loc="outside lower center",
        ncols=_legend_columns(entries),
        frameon=False,
        handlelength=3.2,
    )
    # A label given to the legend itself is left out if it begins with an underscore.
    for text, curve in zip(legend.get_texts(), entries, strict=True):
        text.set_parse_math(False)
        text.set_text(_legend_text(curve))


def _look(curve: Curve) -> dict[str, Any]:
    """Return the properties of a curve's line, and of its entry in the legend."""
    colour = _COLOURS[curve.style % len(_COLOURS)]
    is_marked = len(curve.x) <= _MARKED
    return {
        "color": colour,
        "linestyle": _DASHES[curve.style % len(_DASHES)],
        "linewidth": 1.7,
        "marker": _MARKERS[curve.style % len(_MARKERS)] if is_marked else "",
        "markersize": 4,
        "zorder": 2.5,
    }
