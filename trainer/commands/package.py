"""`torrefy package`: write what spark-submit takes."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from trainer.cluster.packing import torrefy_archive
from trainer.errors import UsageError

ARCHIVE, ENTRY = "torrefy.zip", "train.py"
_PROGRAM = '''\
"""`train` for spark-submit; its arguments are those of `train`."""

import sys

from trainer.cluster.submit import main

sys.exit(main())
'''


def add_parser(commands: Any) -> None:
    """Add `package` to the subcommands of `torrefy`."""
    parser = commands.add_parser(
        "package", help="write torrefy.zip and train.py, for spark-submit", allow_abbrev=False
    )
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="where to (default: here)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the two files, and print how they are used."""
    archive, entry = args.out / ARCHIVE, args.out / ENTRY
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            shutil.copyfile(torrefy_archive(Path(folder)), archive)
        entry.write_text(_PROGRAM, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--out {args.out}: cannot be written ({error.strerror}); choose another folder"
        ) from error
    print(f"spark-submit --master URL --py-files {archive} {entry} --net FILE --workers K")
    return 0
