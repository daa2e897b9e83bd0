"""Draw the study, and write its tables into docs/comparison.md.

    python -m experiments.figures

Reads `experiments/results/*.jsonl`, each the `results.jsonl` of a study's `torrefy compare`; writes
`docs/comparison/*.svg`, and what stands between the marks of a study in the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.figure import Figure

from docs.markdown import table
from trainer.comparison.caveats import caveats
from trainer.comparison.curves import curve
from trainer.comparison.levels import default_level
from trainer.comparison.outcomes import Comparison, Outcome, gather
from trainer.comparison.report.tables import Table, course_table, results_table
from trainer.comparison.results import read_rows
from trainer.comparison.verdict import verdict
from trainer.comparison.wording import value_text
from trainer.plotting.curves import Curve, Panel
from trainer.plotting.figure import draw_curves, draw_panels, save

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments/results"
PAGE = ROOT / "docs/comparison.md"
_SHORT = {
    "sync_interval": "τ",
    "moving_rate": "α",
    "adaptive_period": "adaptive",
}
# By the number of workers: how far from its row a point lies, and what it is.
_LOOKS = {
    1: (0.0, "#0072B2", "o"),
    2: (-0.14, "#D55E00", "s"),
    4: (0.14, "#009E73", "^"),
    8: (0.28, "#CC79A7", "D"),
}
_AXES = {"samples": "samples, of all workers together", "seconds": "seconds since training began"}


def main() -> None:
    """Write all there is."""
    text = PAGE.read_text(encoding="utf-8")
    for path in sorted(RESULTS.glob("*.jsonl")):
        comparison = gather(read_rows(path))
        for name, figure in figures(comparison).items():
            save(figure, PAGE.with_suffix("") / f"{path.stem}_{name}.svg")
        text = filled(text, path.stem, block(comparison))
    PAGE.write_text(text, encoding="utf-8")


def figures(comparison: Comparison) -> dict[str, Figure]:
    """Return the pictures of a study by name: curves against samples and seconds, final values."""
    drawn = {axis: draw_panels(list(panels(comparison, axis))) for axis in _AXES}
    return drawn | {"final": final_figure(comparison)}


def panels(comparison: Comparison, axis: str) -> Iterator[Panel]:
    """Return a panel for each number of workers, with the single run in each."""
    for workers in sorted({each.workers for each in comparison.finished if not each.is_single}):
        shown = [o for o in comparison.finished if o.is_single or o.workers == workers]
        curves = [drawn for o in shown if (drawn := drawn_curve(comparison, o, axis)) is not None]
        note = f"{workers} workers"
        yield Panel(_AXES[axis], f"test {comparison.metric}", curves, note)


def drawn_curve(comparison: Comparison, outcome: Outcome, axis: str) -> Curve | None:
    """Return an outcome's test curve, shaded over its seeds; its style is that of its method."""
    found = curve(outcome, comparison.metric)
    if found is None:
        return None
    x, mean, low, high = (
        np.array(values) for values in (getattr(found, axis), found.mean, found.low, found.high)
    )
    style = methods(comparison).index(method(outcome))
    spread = {"low": low, "high": high} if found.seeds > 1 else {}
    return Curve(method(outcome), style, x, mean, **spread)


def method(outcome: Outcome) -> str:
    """Return what an outcome is called in a picture, apart from its number of workers."""
    text = outcome.label.replace(f", {outcome.workers} workers", "")
    for name, short in _SHORT.items():
        text = text.replace(name, short)
    return text


def methods(comparison: Comparison) -> list[str]:
    """Return all methods, the single run first."""
    return list(dict.fromkeys(map(method, comparison.outcomes)))


def final_figure(comparison: Comparison) -> Figure:
    """Return a picture of final values: a point for each run, a row for each method."""
    names = methods(comparison)
    figure = Figure(figsize=(8, 1.2 + 0.34 * len(names)), layout="constrained")
    axes = figure.subplots()
    draw_curves(axes, [])
    for outcome in comparison.finished:
        values = [row["final"] for row in outcome.finished]
        shift, colour, marker = _LOOKS[outcome.workers]
        place = names.index(method(outcome)) + shift
        label = "one process" if outcome.is_single else f"{outcome.workers} workers"
        axes.scatter(
            values, [place] * len(values), s=26, color=colour, marker=marker, label=label, alpha=0.8
        )
    if comparison.baseline:
        mean = fmean(row["final"] for row in comparison.baseline.finished)
        axes.axvline(mean, color=_LOOKS[1][1], linewidth=1, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(f"final test {comparison.metric}, a point for each run")
    handles, labels = axes.get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=3, frameon=False)
    return figure


def block(comparison: Comparison) -> str:
    """Return the generated text of a study: what follows, tables, what to keep in mind."""
    level, found = default_level(comparison), verdict(comparison)
    lines = [f"**{found.advice}** {found.reason}", ""]
    lines += [f"* {finding.topic}: {finding.text}" for finding in found.findings]
    if level:
        meaning = f" ({level.meaning})" if level.meaning else ""
        lines += ["", f"The level that runs are timed to is {value_text(level.value)}{meaning}."]
    lines += folded("Results", markdown(results_table(comparison)))
    lines += folded("How each run got there", markdown(course_table(comparison)))
    lines += folded("What to keep in mind", [f"* {text}" for text in caveats(comparison)])
    return "\n".join(lines)


def folded(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines that a page shows on demand."""
    return ["", f"<details><summary>{title}</summary>", "", *lines, "", "</details>"]


def markdown(source: Table) -> Sequence[str]:
    """Return a table of the report as one of a page."""
    return table(source.columns, source.rows)


def filled(text: str, name: str, content: str) -> str:
    """Return a page with new text between the marks of a study.

    Raises:
        ValueError: The page has no such marks.
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(rf"{re.escape(start)}\n.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{PAGE}: expected the marks {start} and {end}; found none")
    return pattern.sub(lambda _: f"{start}\n\n{content}\n\n{end}", text)


if __name__ == "__main__":
    main()
