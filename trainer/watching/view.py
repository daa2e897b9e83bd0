"""A run that is watched, drawn for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trainer.watching.parts import Setup, WorkerState
from trainer.watching.state import RunState

_WIDEST = 100  # columns; further ones stay empty
_WIDE = 80  # columns from which on there is room for more
_BLOCKS = "▁▂▃▄▅▆▇█"
_QUIET_S = 30.0  # nothing written for so long is worth a word
_OTHER_LINES = 18  # of a frame, beside the rows of workers
_LEAST_ROWS = 3
_BESIDE_CURVES = 50  # columns


def frame(state: RunState, quiet_s: float, width: int, height: int | None) -> RenderableType:
    """Return the picture of a run.

    Args:
        state: The run.
        quiet_s: Seconds since it last wrote something.
        width: Columns of the terminal.
        height: Lines of the terminal, for which workers may be left out; None for any number.
    """
    width = min(width, _WIDEST)
    parts: list[RenderableType] = [_head(state, quiet_s, width)]
    if state.max_iter:
        parts.append(_bar(state, width))
    parts += [_way(state, quiet_s, width), Text(), _curves(state, width), _rates(state)]
    if state.workers:
        rows = len(state.workers) if height is None else max(_LEAST_ROWS, height - _OTHER_LINES)
        parts += [Text(), _workers(state, quiet_s, width, rows)]
        if len(state.workers) > rows:
            parts.append(Text(f"and {len(state.workers) - rows} more", style="dim"))
    if state.events:
        parts += [Text(), _events(state, width)]
    return Group(*parts)


def _head(state: RunState, quiet_s: float, width: int) -> RenderableType:
    """Return what is trained, and whether it goes on."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.width = width
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(_title(state.setup), _status(state, quiet_s))
    return grid


def _title(setup: Setup | None) -> Text:
    if setup is None:
        return Text("a run that does not say how it was set up")
    count = "" if setup.num_workers == 1 else f", {setup.num_workers} workers"
    return Text.assemble((setup.net, "bold"), f"  {setup.strategy}{count}  {setup.device}")


def _status(state: RunState, quiet_s: float) -> Text:
    if state.is_over:
        is_early = state.iteration < state.max_iter
        return Text("stopped early", "yellow") if is_early else Text("done", "green")
    if quiet_s >= _QUIET_S:
        return Text(f"nothing written for {_roughly(quiet_s)}", "yellow")
    return Text("training", "green") if state.has_begun else Text("starting", "cyan")


def _bar(state: RunState, width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.width = width
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    part = state.iteration / state.max_iter
    grid.add_row(
        ProgressBar(total=1.0, completed=part, complete_style="green"), f"{100 * part:.0f} %"
    )
    return grid


def _way(state: RunState, quiet_s: float, width: int) -> RenderableType:
    """Return how far it is, and how long it took and will take."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.width = width
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    of_all = f" of {state.max_iter:,}" if state.max_iter else ""
    since = 0.0 if state.is_over else min(quiet_s, _QUIET_S)  # it may have ended without a word
    times = f"elapsed {_clock(state.seconds + since)}"
    if state.seconds_left is not None and not state.is_over:
        times += f"  left {_clock(max(0.0, state.seconds_left - since))}"
    grid.add_row(f"iteration {state.iteration:,}{of_all}", times)
    return grid


def _curves(state: RunState, width: int) -> RenderableType:
    """Return loss and score: as they are, as they were."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(4):
        grid.add_column(no_wrap=True)
    columns = max(8, min(40, width - _BESIDE_CURVES))
    grid.add_row("train loss", _number(state.loss), _curve(state.losses.values, columns), "")
    score = state.score
    if score is None:
        grid.add_row("test", "-", "", "")
    else:
        best = f"best {_number(score.best)} at {score.best_iteration:,}"
        curve = _curve(score.trend.values, columns)
        grid.add_row(f"test {score.name}", Text(_number(score.last), "bold"), curve, best)
    return grid


def _rates(state: RunState) -> RenderableType:
    speed = "-" if state.images_per_s is None else f"{state.images_per_s:,.0f}"
    rate = "-" if state.lr is None else f"{state.lr:g}"
    return Text(f"{speed} images/s  learning rate {rate}")


def _workers(state: RunState, quiet_s: float, width: int, rows: int) -> RenderableType:
    is_wide = width >= _WIDE
    table = Table(box=None, pad_edge=False, padding=(0, 2 if is_wide else 1, 0, 0))
    for name in ("worker", "iteration", "loss", "exchanging", *([""] if is_wide else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("staleness", justify="right", no_wrap=True)
    table.add_column("last heard", justify="right", no_wrap=True)
    now = state.seconds + (0.0 if state.is_over else quiet_s)
    for worker in list(state.workers.values())[:rows]:
        share = _share(worker)
        table.add_row(
            *(str(worker.rank), f"{worker.iteration:,}", _number(worker.loss)),
            "-" if share is None else f"{100 * share:.0f} %",
            *([_share_bar(share)] if is_wide else []),
            _staleness(worker),
            _heard(worker, now),
            style="dim" if worker.is_dropped else "",
        )
    return table


def _share(worker: WorkerState) -> float | None:
    """Return the part of its time that a worker waits for exchanges."""
    total = worker.compute_s + worker.exchange_s
    return worker.exchange_s / total if total else None


def _share_bar(share: float | None) -> Text:
    cells = 0 if share is None else round(10 * share)
    return Text.assemble(("█" * cells, "yellow"), ("░" * (10 - cells), "dim"))


def _staleness(worker: WorkerState) -> str:
    if not worker.exchanges:
        return "-"
    return f"{worker.staleness / worker.exchanges:.1f} / {worker.max_staleness}"


def _heard(worker: WorkerState, now: float) -> str:
    if worker.is_dropped:
        return "dropped"
    return "-" if worker.heard_s is None else f"{_roughly(now - worker.heard_s)} ago"


def _events(state: RunState, width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.width = width
    grid.add_column(style="dim", no_wrap=True, justify="right")
    grid.add_column(ratio=1)
    for event in state.events:
        grid.add_row(_clock(event.seconds), Text(event.text))
    return grid


def _curve(values: Sequence[float], columns: int) -> str:
    """Return values as a row of blocks, the least lowest; many of them as means of neighbours."""
    if not values:
        return ""
    columns = min(columns, len(values))
    edges = [len(values) * number // columns for number in range(columns + 1)]
    parts = [values[start:end] for start, end in pairwise(edges)]
    means = [sum(part) / len(part) for part in parts]
    least, span = min(means), max(means) - min(means)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round(top * (mean - least) / span) if span else 0] for mean in means)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _clock(seconds: float) -> str:
    """Return `1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _roughly(seconds: float) -> str:
    """Return `12 s`, `3 min`, `5 h`, `2 d`."""
    for unit, length, limit in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if seconds < limit * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
