"""`torrefy parse-log`: tables out of a training log."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError
from trainer.parse_log import csv_text, output_rows, read_log, shell_tables


def add_parser(commands: Any) -> None:
    """Add `parse-log` to the subcommands of `torrefy`."""
    parser = commands.add_parser(
        "parse-log",
        help="make tables of a training log, Caffe's or ours",
        description="Write LOG.train and LOG.test, as Caffe's tools/extra/parse_log.py or .sh do.",
        allow_abbrev=False,
    )
    parser.add_argument("log", type=Path, metavar="LOG", help="log of a training run")
    parser.add_argument(
        "outdir", type=Path, nargs="?", default=Path(), metavar="OUTDIR", help="default: here"
    )
    parser.add_argument(
        "--format",
        choices=["py", "sh"],
        default="py",
        help="py: every output, comma-separated; sh: loss, rate, outputs 0 and 1, in columns",
    )
    parser.add_argument(
        "--delimiter", type=_delimiter, default=",", help="between cells of format py (default ,)"
    )
    parser.add_argument("--verbose", action="store_true", help="say which files are written")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write both tables; returns the exit status."""
    lines = read_log(args.log)
    if args.format == "sh":
        texts = shell_tables(lines)
    else:
        train, test = (
            csv_text(rows, args.delimiter) if rows else "" for rows in output_rows(lines)
        )
        texts = (train, test)
    for kind, text in zip(("train", "test"), texts, strict=True):
        path = Path(args.outdir, f"{args.log.name}.{kind}")
        if text:
            _write(path, text)
        if args.verbose:
            print(f"Wrote {path}" if text else f"Not writing {path}: no complete row for it")
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise TrainerError(f"{path}: cannot write the table: {error.strerror}") from error


def _delimiter(text: str) -> str:
    if len(text) != 1 or text in '"\r\n':
        raise argparse.ArgumentTypeError(f"expected one character; received {text!r}")
    return text
