"""What was run: the net, the runs, the machine and the software."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trainer.comparison.outcomes import Comparison, Row, facts_of
from trainer.comparison.wording import count_text, joined, plural


def facts(comparison: Comparison) -> dict[str, Any]:
    """Return the title of the report, a line under it, and names with what they are."""
    rows = comparison.rows
    finished = [row for row in rows if row["status"] == "finished"]
    net = next((row.get("net") or row.get("solver") for row in rows), None)
    line = f"{plural(len(rows), 'run')} of {plural(len(comparison.outcomes), 'combination')}"
    if finished:
        first = finished[0]
        line += (
            f", {count_text(first['iterations'])} iterations of {first['batch']} images"
            f"{' for each worker' if first.get('per_worker') else ''}"
        )
    started = sorted(row["started"] for row in finished if row.get("started"))
    listed = {
        "Net": _distinct(row.get("net") for row in rows),
        "Solver": _distinct(row.get("solver") for row in rows),
        "Seeds": joined([str(seed) for seed in sorted({row["seed"] for row in rows})] or ["none"]),
        "Started": " to ".join(dict.fromkeys((*started[:1], *started[-1:]))),
        "Machine": _distinct(_machine(row) for row in rows),
        "Software": ", ".join(
            f"{name} {' and '.join(map(str, found))}"
            for name, found in facts_of(finished, "versions").items()
        ),
    }
    return {
        "title": net or "no runs yet",
        "line": line,
        "listed": {name: text for name, text in listed.items() if text},
    }


def _distinct(texts: Iterable[str | None]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


def _machine(row: Row) -> str:
    machine = row.get("machine") or {}
    parts = {
        "processor": "{}",
        "instructions": "{}",
        "cores": "{} cores",
        "memory_gb": "{:g} GB",
        "system": "{}",
    }
    return ", ".join(
        pattern.format(machine[name])
        for name, pattern in parts.items()
        if machine.get(name) is not None
    )
