"""`torrefy plot`: curves of runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer.errors import UsageError
from trainer.plotting.curves import DEFAULT_NAMES, X_AXES, make_panels, recorded_names
from trainer.plotting.records import RunRecords, read_runs


def add_parser(commands: Any) -> None:
    """Add `plot` to the subcommands of `torrefy`."""
    parser = commands.add_parser(
        "plot",
        help="draw the curves of runs, from their metrics files or from logs",
        description="Draw what runs have recorded: accuracy, loss, learning rate, staleness, …",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="a run's folder (what --out named), its metrics file, or a log of Caffe's or ours",
    )
    parser.add_argument(
        "--x", choices=X_AXES, default="iterations", help="axis to the right (default iterations)"
    )
    parser.add_argument(
        "--y",
        type=_names,
        metavar="NAME[,NAME]",
        help="what is drawn, in panels under each other, by the names in the metrics file: "
        "accuracy, loss, lr, staleness, exchange_s, … (default: accuracy and loss)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("curves.png"),
        metavar="FILE",
        help="picture to write: .png or .svg (default curves.png)",
    )
    parser.add_argument("--title", help="over the picture")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw; returns the exit status.

    Raises:
        UsageError: The runs have not recorded what is asked for, or the picture's ending is wrong.
        DataError: A run cannot be read.
        TrainerError: matplotlib is missing.
        WriteError: The picture cannot be written.
    """
    from trainer.plotting.figure import check_format, draw_panels, save  # loads matplotlib

    check_format(args.out)
    runs = read_runs(args.runs)
    names = args.y or _default_names(runs)
    panels = make_panels(runs, names, args.x)
    save(draw_panels(panels, args.title), args.out)
    drawn = [run for run in runs if not set(names).isdisjoint(recorded_names([run]))]
    for run in (run for run in runs if run not in drawn):
        print(f"Left out {run.name}: it has recorded no {' and no '.join(names)}")
    labels = ", ".join(panel.y_label for panel in panels)
    print(f"Drew {labels} of {_count(len(drawn))} to {args.out}")
    return 0


def _default_names(runs: list[RunRecords]) -> list[str]:
    known = recorded_names(runs)
    names = [name for name in DEFAULT_NAMES if name in known]
    if not names:
        raise UsageError(
            f"neither {' nor '.join(DEFAULT_NAMES)} is recorded in any of the runs; "
            + (f"name with --y what to draw: {', '.join(known)}" if known else "nothing is, so far")
        )
    return names


def _count(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"expected names between commas; received {text!r}")
    return list(dict.fromkeys(names))
