"""Write the nets of models/prototxt that follow from a paper's table.

python -m models.generate                     # all of them
python -m models.generate resnet20 resnet50
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from models.inception_v3 import inception_v3
from models.net_text import NetWriter
from models.resnet import cifar_resnet, imagenet_resnet

FOLDER = Path(__file__).parent / "prototxt"

NETS: dict[str, Callable[..., NetWriter]] = {
    "inception_v3": inception_v3,
    "resnet20": partial(cifar_resnet, 20),
    "resnet56": partial(cifar_resnet, 56),
    "resnet110": partial(cifar_resnet, 110),
    "resnet50": partial(imagenet_resnet, 50),
    "resnet101": partial(imagenet_resnet, 101),
}


def files(name: str) -> dict[str, str]:
    """Return the text of a net's files, by file name."""
    make = NETS[name]
    return {
        f"{name}.prototxt": make(deploy=False).text(),
        f"{name}_deploy.prototxt": make(deploy=True).text(),
    }


def main() -> None:
    """Write the nets that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", metavar="NET", help=", ".join(NETS))
    args = parser.parse_args()
    if unknown := set(args.nets) - set(NETS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; expected {', '.join(NETS)}")
    for name in args.nets or NETS:
        for file, text in files(name).items():
            (FOLDER / file).write_text(text)


if __name__ == "__main__":
    main()
