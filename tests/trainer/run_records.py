"""Records as a run writes them into its metrics file."""

from typing import Any

Record = dict[str, Any]


def start(**values: Any) -> Record:
    defaults = {
        "net": "tiny", "strategy": "deepspark", "workers": 2, "max_iter": 1000, "batch": 5,
        "per_worker": False, "options": {}, "seed": 5, "device": "cpu",
    }  # fmt: skip
    return record("start", 0, 0.0) | defaults | values


def record(kind: str, iteration: int, seconds: float, **values: Any) -> Record:
    samples = 5 * iteration
    return {
        "kind": kind, "iteration": iteration, "samples": samples, "seconds": seconds, **values,
    }  # fmt: skip


def event(what: str, iteration: int, seconds: float, **values: Any) -> Record:
    return record("event", iteration, seconds, event=what, **values)


def exchange(rank: int, done: int, seconds: float, **values: Any) -> Record:
    """Return an exchange of one of two workers that has `done` iterations behind it."""
    defaults = {
        "rank": rank, "worker_iteration": done, "loss": 0.5, "center_loss": None, "lr": 0.01,
        "compute_s": 0.3, "exchange_s": 0.1, "sent_bytes": 8, "received_bytes": 8, "staleness": 0,
    }  # fmt: skip
    return record("exchange", 2 * done, seconds, **(defaults | values))
