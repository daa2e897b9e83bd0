"""`torrefy data`: image sets as the databases and mean files that Caffe's examples use."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from trainer.data.auto import DATA_VARIABLE, prepare_cifar10
from trainer.data.datasets import IMAGE_SETS, prepare
from trainer.data.shapes import write_shapes

_MOST_IMAGES = 100_000  # keys have 5 digits


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `data` and its own subcommands to a command line."""
    parser = subparsers.add_parser(
        "data", help="make the databases of an image set", description=__doc__, allow_abbrev=False
    )
    sets = parser.add_subparsers(dest="set", required=True, metavar="SET")
    for name in IMAGE_SETS:
        published = _add_set(sets, name, f"{name}, from its publishers' files")
        published.add_argument(
            "--from",
            dest="source",
            type=Path,
            metavar="DIR",
            help="folder that holds the publishers' files, loose or packed"
            " (default: download them to OUT/download)",
        )
    shapes = _add_set(sets, "shapes", "drawn shapes in 10 classes, under the names of cifar10")
    shapes.add_argument(
        "--seed", type=_seed, default=0, help="equal seeds draw equal images (default: 0)"
    )
    for part, count in (("train", 50_000), ("test", 10_000)):
        shapes.add_argument(
            f"--{part}",
            type=_image_count,
            default=count,
            metavar="N",
            help=f"number of {part} images (default: {count})",
        )
    _add_set(
        sets,
        "auto",
        f"cifar10 from the folder that {DATA_VARIABLE} names, else by download, else the shapes",
    )
    parser.set_defaults(run=run)


def _add_set(
    sets: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    parser = sets.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write to; what it holds already is kept",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Make the set that the command line names.

    Raises:
        TrainerError: It cannot be made.
    """
    start = time.monotonic()
    if args.set == "auto":
        print(f"{args.out}: {prepare_cifar10(args.out)} ({time.monotonic() - start:.1f} s)")
        return 0
    if args.set == "shapes":
        written = write_shapes(args.out, args.seed, args.train, args.test)
    else:
        written = prepare(IMAGE_SETS[args.set], args.out, args.source)
    for path in written:
        print(f"{path}: {_size_bytes(path) / 1e6:.1f} MB")
    seconds = time.monotonic() - start
    print(f"{args.out}: {args.set} " + (f"made in {seconds:.1f} s" if written else "already there"))
    return 0


def _size_bytes(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _seed(text: str) -> int:
    return _whole_number(text, 0, 2**63 - 1)


def _image_count(text: str) -> int:
    return _whole_number(text, 1, _MOST_IMAGES)


def _whole_number(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"expected a number from {least} to {most}; got {text}")
    return int(text)
