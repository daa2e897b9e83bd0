"""`torrefy data`: image sets as the databases and mean files that Caffe's examples use."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from trainer.data.auto import DATA_VARIABLE, prepare_cifar10
from trainer.data.datasets import IMAGE_SETS, prepare, siamese
from trainer.data.padding import channel_means, write_padded
from trainer.data.shapes import LAYOUT as SHAPES_LAYOUT
from trainer.data.shapes import write_shapes

_MOST_IMAGES = 100_000  # keys have 5 digits
_WIDEST_BORDER = 100


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `data` and its own subcommands to a command line."""
    parser = subparsers.add_parser(
        "data", help="make the databases of an image set", description=__doc__, allow_abbrev=False
    )
    sets = parser.add_subparsers(dest="set", required=True, metavar="SET")
    for name, image_set in IMAGE_SETS.items():
        published = _add_set(sets, name, f"{name}, from its publishers' files")
        _add_source(published)
        if image_set.layout.has_mean:
            _add_pad(published)
    pairs = _add_set(sets, "siamese", "random pairs of mnist's images, as LevelDBs")
    _add_source(pairs)
    pairs.add_argument(
        "--seed", type=_seed, default=0, help="equal seeds pair equally (default: 0)"
    )
    shapes = _add_set(sets, "shapes", "drawn shapes in 10 classes, under the names of cifar10")
    _add_pad(shapes)
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


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="DIR",
        help="folder that holds the publishers' files, loose or packed"
        " (default: download them to OUT/download)",
    )


def _add_pad(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pad",
        type=_border,
        metavar="N",
        help="make the training database once more, of images with a border of N pixels in the mean"
        " colour, for random crops of the images' own size",
    )


def run(args: argparse.Namespace) -> int:
    """Make the set that the command line names.

    Raises:
        TrainerError: It cannot be made.
    """
    start = time.monotonic()
    if args.set == "auto":
        print(f"{args.out}: {prepare_cifar10(args.out)} ({time.monotonic() - start:.1f} s)")
        return 0
    written = _write(args)
    for path in written:
        print(f"{path}: {_size_bytes(path) / 1e6:.1f} MB")
    seconds = time.monotonic() - start
    print(f"{args.out}: {args.set} " + (f"made in {seconds:.1f} s" if written else "already there"))
    if "pad" in args and args.pad:
        print("channel means: " + " ".join(f"mean_value: {m:g}" for m in channel_means(args.out)))
    return 0


def _write(args: argparse.Namespace) -> list[Path]:
    if args.set == "siamese":
        return prepare(siamese(args.seed), args.out, args.source)
    if args.set == "shapes":
        layout = SHAPES_LAYOUT
        written = write_shapes(args.out, args.seed, args.train, args.test)
    else:
        layout = IMAGE_SETS[args.set].layout
        written = prepare(IMAGE_SETS[args.set], args.out, args.source)
    if "pad" in args and args.pad:
        written += write_padded(args.out, layout, args.pad)
    return written


def _size_bytes(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _seed(text: str) -> int:
    return _whole_number(text, 0, 2**63 - 1)


def _image_count(text: str) -> int:
    return _whole_number(text, 1, _MOST_IMAGES)


def _border(text: str) -> int:
    return _whole_number(text, 1, _WIDEST_BORDER)


def _whole_number(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"expected a number from {least} to {most}; got {text}")
    return int(text)
