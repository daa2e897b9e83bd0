"""Seconds and memory of writing, verifying and reading a checkpoint.

    python benchmarks/checkpoints.py --uri /tmp/checkpoints

The large one has the parameters of CaffeNet in one file of tensors, the small ones two files of 0.6
MB each. The store is on the file system that `--uri` names, and is left there.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import torch
from machine import report

from trainer.checkpoints import open_store
from trainer.checkpoints.tensors import read_tensors, write_tensors

PARAMETERS = 61_000_000
SMALL_BYTES, SMALL_COUNT = 600_000, 50


def peak_mb() -> float:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def large(uri: str) -> dict[str, Any]:
    """Write, verify and read one checkpoint of CaffeNet's size."""
    store = open_store(uri, 1)
    store.write_run({}, resumes=True)
    values = torch.randn(PARAMETERS)
    before, start = peak_mb(), time.perf_counter()
    with store.begin(1) as pending:
        with pending.writing("rank_0.arrow") as sink:
            write_tensors(sink, [values])
        pending.commit({})
    written, grown_mb = time.perf_counter(), peak_mb() - before
    found = store.latest()
    assert found is not None
    verified = time.perf_counter()
    with found.reading("rank_0.arrow") as stream:
        (read,) = read_tensors(stream, 1, PARAMETERS)
    done = time.perf_counter()
    assert torch.equal(read, values)
    return {
        "write_s": round(written - start, 3),
        "write_grows_mb": round(grown_mb, 1),
        "verify_s": round(verified - written, 3),
        "read_s": round(done - verified, 3),
    }


def small_ms(uri: str) -> float:
    """Return milliseconds per checkpoint of many small ones."""
    store = open_store(uri, 2)
    store.write_run({}, resumes=True)
    start = time.perf_counter()
    for iteration in range(SMALL_COUNT):
        with store.begin(iteration) as pending:
            for name in ("state.caffemodel", "rank_0.arrow"):
                with pending.writing(name) as sink:
                    sink.write(bytes(SMALL_BYTES))
            pending.commit({})
    return (time.perf_counter() - start) / SMALL_COUNT * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uri", required=True)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    figures = {**large(args.uri), "small_ms": round(small_ms(args.uri), 1)}
    report("checkpoints", figures, args.out)


if __name__ == "__main__":
    main()
