"""What `train.py` of `torrefy package` runs: `train`, on the Spark that spark-submit names."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from trainer.cli import train_main


def main(argv: Sequence[str] | None = None) -> int:
    """Run `train` with the master of spark-submit; returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not any(word.startswith(("--master", "-master")) for word in words):
        words += _master()
    return train_main(words)


def _master() -> list[str]:
    # Here, because `train --help` and a run in one process need no pyspark.
    from trainer.cluster.settings import submitted_master

    master = submitted_master()
    return ["--master", master] if master else []
