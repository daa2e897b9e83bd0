"""`compare`: train a net by several strategies, and report which does best, and why."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prototxt_parser.atomic import atomic_write
from trainer.commands.flags import positive
from trainer.commands.train_flags import option_fields
from trainer.comparison.combination import combine, parse_value
from trainer.comparison.outcomes import Row, is_disturbed
from trainer.comparison.report import check_packages, render
from trainer.comparison.results import write_rows, write_table
from trainer.comparison.runner import Place, opened, result_of, run_one
from trainer.comparison.study import STRATEGIES, Study, read_study
from trainer.errors import UsageError
from trainer.extensions import add_extension_flags
from trainer.strategies import flag

_STUDY_FLAGS = (
    *("net", "solver", "strategies", "workers", "samples", "iterations", "seeds", "tests"),
    "per_worker",
)
_RESULTS, _TABLE, _REPORT = "results.jsonl", "results.csv", "report.html"


def add_parser(commands: Any) -> None:
    """Add `compare` to the subcommands of `torrefy`."""
    parser = commands.add_parser(
        "compare",
        help="train a net by several strategies and report on them",
        epilog="What follows -- are flags of train for every run, such as -- --encryption on",
        allow_abbrev=False,
    )
    _add_study_flags(parser)
    _add_place_flags(parser)
    add_extension_flags(parser)
    parser.set_defaults(run=run)


def _add_study_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to compare")
    group.add_argument("--study", type=Path, metavar="FILE", help="a TOML file that says all this")
    group.add_argument("--net", metavar="FILE", help="net prototxt, or the name of a shipped one")
    group.add_argument("--solver", metavar="FILE", help="solver; default: the one beside the net")
    group.add_argument("--strategies", metavar="S[,S...]", help=f"default: {','.join(STRATEGIES)}")
    group.add_argument("--workers", metavar="K[,K...]", help="numbers of workers (default 2)")
    group.add_argument(
        "--samples", type=positive, metavar="N", help="images of each run, of all workers together"
    )
    group.add_argument(
        "--iterations", type=positive, metavar="N", help="the same in iterations; default: max_iter"
    )
    group.add_argument("--seeds", type=positive, metavar="N", help="runs of each (default 3)")
    group.add_argument("--tests", type=positive, metavar="N", help="tests of a run (default 10)")
    group.add_argument(
        "--per-worker",
        action="store_true",
        help="samples, iterations and learning rate count for each worker, as in the papers",
    )
    for name, (field, strategies) in option_fields().items():
        group.add_argument(
            flag(name),
            dest=f"option_{name}",
            metavar="V[,V...]",
            help=f"{field.metadata['help']} ({', '.join(strategies)})",
        )


def _add_place_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where")
    group.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for all of it"
    )
    group.add_argument("--data", metavar="DIR", help="as train's --data")
    group.add_argument("--master", metavar="URL", help="as train's --master; single does without")
    group.add_argument(
        "--repeat-disturbed",
        action="store_true",
        help="run those again during which other programs used the machine",
    )
    group.add_argument("--dry-run", action="store_true", help="print the runs and stop")
    group.add_argument("train_flags", nargs="*", metavar="-- TRAIN FLAGS", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Run what has not been run, and write the report after each."""
    check_packages()
    study, flags = _study(args), list(args.train_flags)
    flags += ["--data", args.data] if args.data else []
    for name in ("layer_module", "allow_python_layer"):
        flags += [word for value in getattr(args, name) for word in (flag(name), value)]
    place = Place(args.out, tuple(flags), args.master)
    with opened(study, place) as iterations:
        print(f"{len(study.runs)} runs of {iterations} iterations, in {place.folder}")
        if args.dry_run:
            print(*(each.name for each in study.runs), sep="\n")
            return 0
        command = shlex.join(["torrefy", *args.words])
        failed = _run(study, place, iterations, command, repeats=args.repeat_disturbed)
    print(f"report     {place.folder / _REPORT}")
    if failed:
        print(f"{failed} runs failed; the same command tries them again")
    return 1 if failed else 0


def _study(args: argparse.Namespace) -> Study:
    """Return the study that a file or the flags describe."""
    values = {
        name: [parse_value(name, text) for text in given.split(",")]
        for name in option_fields()
        if (given := getattr(args, f"option_{name}")) is not None
    }
    given = [name for name in _STUDY_FLAGS if getattr(args, name)]
    if args.study is not None:
        if given or values:
            flags = ", ".join(map(flag, [*given, *values]))
            raise UsageError(f"--study says what to compare: leave out {flags}")
        return read_study(args.study)
    strategies = args.strategies.split(",") if args.strategies else STRATEGIES
    workers = _numbers(args.workers) if args.workers else [2]
    numbers = {name: getattr(args, name) for name in ("seeds", "tests") if getattr(args, name)}
    return Study(
        net=args.net,
        solver=args.solver,
        combinations=tuple(combine(strategies, workers, values)),
        samples=args.samples,
        iterations=args.iterations,
        per_worker=args.per_worker,
        **numbers,
    )


def _numbers(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f"--workers: expected numbers, 1 or more; received {text}")
    return [int(word) for word in words]


def _run(study: Study, place: Place, iterations: int, command: str, *, repeats: bool) -> int:
    """Run what is to be run, with `repeats` what was disturbed too; return how many runs failed."""
    rows = {run.name: row for run in study.runs if (row := result_of(run, place)) is not None}
    left = [
        run
        for run in study.runs
        if run.name not in rows or (repeats and is_disturbed(rows[run.name]))
    ]
    done = len(study.runs) - len(left)
    _write(study, place, rows, command)
    start = time.monotonic()
    for number, run in enumerate(left, 1):
        rows[run.name] = row = run_one(run, study, place, iterations)
        _write(study, place, rows, command)
        minutes = (time.monotonic() - start) / number * (len(left) - number) / 60
        line = f"{done + number}/{len(study.runs)} {run.name}: {_outcome(row)}"
        print(f"{line}; {minutes:.0f} min left")
        sys.stdout.flush()
    return sum(row["status"] == "failed" for row in rows.values())


def _outcome(row: Row) -> str:
    if row["status"] == "failed":
        return f"failed: {row['error']}"
    if row["status"] == "diverged":
        return "diverged"
    return f"{row['metric']} {row['final']:.4f} in {row['seconds']:.0f} s"


def _write(study: Study, place: Place, rows: Mapping[str, Row], command: str) -> None:
    """Write all files that tell of the rows there are."""
    ordered = [rows[run.name] for run in study.runs if run.name in rows]
    write_rows(ordered, place.folder / _RESULTS)
    write_table(ordered, place.folder / _TABLE)
    planned = [run.name for run in study.runs if run.name not in rows]
    page = render(ordered, planned=planned, command=command)
    with atomic_write(place.folder / _REPORT) as file:
        file.write(page.encode())
