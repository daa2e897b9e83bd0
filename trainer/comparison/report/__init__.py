"""The report of a comparison: one HTML page that needs nothing beside it, nor a network."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from trainer.comparison.caveats import caveats
from trainer.comparison.levels import default_level
from trainer.comparison.outcomes import gather
from trainer.comparison.report.charts import chart_data
from trainer.comparison.report.facts import facts
from trainer.comparison.report.tables import course_table, faults, results_table, run_table
from trainer.comparison.verdict import RULE, verdict
from trainer.comparison.wording import plural, value_text
from trainer.errors import TrainerError

_PACKAGES = ("jinja2", "plotly")


def check_packages() -> None:
    """Have it known early whether a report can be written.

    Raises:
        TrainerError: jinja2 or plotly is not installed.
    """
    for name in _PACKAGES:
        _package(name)


def render(rows: Sequence[Mapping[str, Any]], planned: Sequence[str], command: str) -> str:
    """Return the page.

    Args:
        rows: Results of runs of one net, an object each as in `results.jsonl`.
        planned: Names of the runs that are still to come; empty once all have been run.
        command: The command line that runs the comparison again.

    Raises:
        DataError: The rows are of several nets, or otherwise of runs that do not compare.
        TrainerError: jinja2 or plotly is not installed.
    """
    comparison = gather(rows)
    jinja2, offline = _package("jinja2"), _package("plotly.offline")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plural"] = plural
    data = chart_data(comparison)
    level = default_level(comparison)
    page: str = environment.from_string(_text("page.jinja")).render(
        facts=facts(comparison),
        verdict=verdict(comparison),
        rule=RULE,
        caveats=caveats(comparison, planned),
        data=data,
        json=_embedded(data),
        level=value_text(level.value) if level else "",
        level_meaning=level.meaning if level else "",
        results=results_table(comparison),
        course=course_table(comparison),
        runs=run_table(comparison),
        faults=faults(comparison),
        planned=planned,
        command=command,
        style=_text("page.css"),
        scripts=[offline.get_plotlyjs(), _text("charts.js"), _text("page.js")],
    )
    return page


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise TrainerError(
            "torrefy compare writes its report with jinja2 and plotly, which are not both "
            "installed: pip install 'torrefy[compare]'"
        ) from None


def _text(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _embedded(data: Any) -> str:
    """Return JSON that may stand in a script element whatever it says."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
