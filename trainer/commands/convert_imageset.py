"""`torrefy convert-imageset`: image files into a database of Datums."""

from __future__ import annotations

import argparse
import logging
import secrets
from pathlib import Path
from typing import Any

from trainer.caffe_log import log_lines
from trainer.commands.flags import add_switch
from trainer.data.database import BACKENDS, write_database
from trainer.data.draws import Draws
from trainer.data.image_list import read_image_list
from trainer.data.image_set import Conversion, image_entries

logger = logging.getLogger(__name__)


def add_parser(commands: Any) -> None:
    """Add `convert-imageset` to the subcommands of `torrefy`."""
    parser = commands.add_parser(
        "convert-imageset",
        help="put image files into a database",
        description="Put the images that LISTFILE names, as lines of a path and a label, into the"
        " new database DB_NAME. Each path is appended to ROOTFOLDER as it is. Images that cannot be"
        " read are left out.",
        allow_abbrev=False,
    )
    parser.add_argument("root", metavar="ROOTFOLDER/")
    parser.add_argument("list", type=Path, metavar="LISTFILE")
    parser.add_argument("database", type=Path, metavar="DB_NAME")
    add_switch(parser, "gray", "store one channel instead of three")
    add_switch(parser, "shuffle", "put the images in random order")
    parser.add_argument(
        "--seed", type=int, default=None, help="of the random order (default: another every time)"
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, default="lmdb", help="kind of database (default lmdb)"
    )
    for name in ("width", "height"):
        parser.add_argument(
            f"--resize-{name}",
            type=int,
            default=0,
            metavar="N",
            help=f"{name} of the stored images; both or none (default 0: as they are)",
        )
    add_switch(parser, "check-size", "refuse images that differ from the first in size")
    add_switch(parser, "encoded", "store compressed images instead of pixels")
    parser.add_argument(
        "--encode-type",
        default="",
        metavar="EXTENSION",
        help="format to store, such as png or jpg; implies -encoded (default: each file's own)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the database; returns the exit status."""
    with log_lines():
        if args.encode_type and not args.encoded:
            logger.info("encode_type specified, assuming encoded=true.")
        conversion = Conversion(
            gray=args.gray,
            height=max(0, args.resize_height),
            width=max(0, args.resize_width),
            check_size=args.check_size,
            encoded=args.encoded,
            encode_type=args.encode_type,
        )
        images = read_image_list(args.list)
        numbered = [(image.line - 1, image) for image in images]
        if args.shuffle:
            seed = secrets.randbits(31) if args.seed is None else args.seed
            logger.info("Shuffling data with seed %d", seed)
            order = Draws(seed, 0).order(len(images), 0)
            numbered = [(number, images[place]) for number, place in enumerate(order)]
        logger.info("A total of %d images.", len(images))
        entries = image_entries(args.root, numbered, conversion)
        count = write_database(args.database, entries, args.backend)
    print(f"{args.database}: {count} of {len(images)} images")
    return 0
