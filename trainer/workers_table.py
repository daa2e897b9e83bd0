"""The table of workers with which a distributed run ends."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.tally import WorkerTotals

_HEAD = (
    *("worker", "host", "starts", "iterations", "exchanges", "compute", "exchange"),
    *("sent", "received", "staleness", "loss"),
)
_UNITS = ("B", "kB", "MB", "GB", "TB")


def workers_table(workers: Sequence[WorkerTotals]) -> list[str]:
    """Return lines: a head, and a row for each worker; staleness is mean and greatest."""
    rows = [_HEAD, *(_row(worker) for worker in workers)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.rjust, row, widths)).rstrip() for row in rows]


def _row(worker: WorkerTotals) -> tuple[str, ...]:
    mean = worker.staleness / worker.exchanges if worker.exchanges else 0.0
    return (
        *(str(worker.rank), worker.host, str(worker.attempts), str(worker.iterations)),
        *(str(worker.exchanges), f"{worker.compute_s:.1f} s", f"{worker.exchange_s:.1f} s"),
        *(_bytes(worker.sent_bytes), _bytes(worker.received_bytes)),
        f"{mean:.1f} / {worker.max_staleness}",
        "-" if worker.loss is None else f"{worker.loss:.4g}",
    )


def _bytes(count: float) -> str:
    unit = next((u for p, u in enumerate(_UNITS) if count < 1000 ** (p + 1)), _UNITS[-1])
    return f"{count / 1000 ** _UNITS.index(unit):.1f} {unit}"
