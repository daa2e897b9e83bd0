"""Runs of `train` on the tiny task, and what they write down."""

import json
from pathlib import Path
from typing import Any

from prototxt_parser.text import print_text
from tiny_task import tiny_net, tiny_param, write_data
from trainer.cli import train_main

WORKERS = ("--workers", "2", "--master", "in-process", "--strategy")


def write_task(folder: Path) -> None:
    """Write data, net and solver: 40 iterations of 5 images, a snapshot and a test at 20."""
    write_data(folder)
    (folder / "tiny.prototxt").write_text(print_text(tiny_net().param))
    param = tiny_param(Path("tiny"), net="tiny.prototxt", snapshot=20, display=10)
    (folder / "tiny_solver.prototxt").write_text(print_text(param))


def train(*words: str) -> None:
    """Train the task of the working directory into its folder `run`."""
    command = ["--solver", "tiny_solver.prototxt", "--out", "run", "--seed", "5", *words]
    assert train_main(command) == 0


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the records of the run of the task in a folder."""
    lines = (folder / "run/tiny_metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
