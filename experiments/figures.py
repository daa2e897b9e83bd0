"""Draw the study, and write its tables into docs/comparison.md.

    python -m experiments.figures

Reads `experiments/results/*.jsonl`, each the `results.jsonl` of a study's `torrefy compare`; writes
`docs/comparison/*.svg`, and what stands between the marks of a study in the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

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
    """Return what an outcome is called apart from its number of workers."""
    return outcome.label.replace(f", {outcome.workers} workers", "")


def methods(comparison: Comparison) -> list[str]:
    """Return all methods, the single run first."""
    return list(dict.fromkeys(map(method, comparison.outcomes)))


def final_figure(comparison: Comparison) -> Figure:
    """Return a picture of final values: a point for each run, by method."""
    names = methods(comparison)
    figure = Figure(figsize=(8, 0.9 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots()
    single = comparison.baseline
    for outcome in comparison.finished:
        values = [row["final"] for row in outcome.finished]
        offset = 0.0 if outcome.is_single else 0.14 * (1 if outcome.workers > 2 else -1)
        place = names.index(method(outcome)) + offset
        style = 0 if outcome.is_single else outcome.workers // 2
        points = Curve("", style, np.array(values), np.full(len(values), place))
        draw_curves(axes, [points])
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(
        f"final test {comparison.metric}; each point is a run; upper 2, lower 4 workers"
    )
    if single:
        mean = float(np.mean([row["final"] for row in single.finished]))
        axes.axvline(mean, color="#0072B2", linewidth=1, linestyle=":")
    return figure


def block(comparison: Comparison) -> str:
    """Return the generated text of a study: what follows, tables, what to keep in mind."""
    level, found = default_level(comparison), verdict(comparison)
    lines = [f"**{found.advice}** {found.reason}", ""]
    lines += [f"* {finding.topic}: {finding.text}" for finding in found.findings]
    if level:
        meaning = f" ({level.meaning})" if level.meaning else ""
        lines += ["", f"The level that runs are timed to is {value_text(level.value)}{meaning}."]
    for each in (results_table(comparison), course_table(comparison)):
        lines += ["", *markdown(each)]
    lines += ["", "What to keep in mind:", "", *(f"* {text}" for text in caveats(comparison))]
    return "\n".join(lines)


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
