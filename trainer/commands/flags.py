"""Flags as Caffe's tools spell them."""

from __future__ import annotations

import argparse
import math

_LAST_PORT = 65535
_YES, _NO = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")


def add_switch(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add a flag that is off unless given, in every spelling of gflags.

    `-name`, `-name=true` and `-name=1` turn it on, `-noname` and `-name=false` turn it off, and the
    last one holds; as in gflags, a value never stands in a word of its own.

    Args:
        parser: Of the command.
        name: Without dashes, words divided by `-`.
        text: What turning it on does.

    Source: gflags gflags.cc, FlagValue::ParseFrom and CommandLineFlagParser.
    """
    dest = name.replace("-", "_")
    parser.add_argument(f"--{name}", action="store_true", dest=dest, help=text)
    for action, words in (("store_true", _YES), ("store_false", _NO)):
        values = [form for word in words for form in {word, word.capitalize(), word.upper()}]
        spellings = [f"--{name}={value}" for value in values]
        if action == "store_false":
            spellings.append(f"--no{name}")
        parser.add_argument(
            *spellings, action=action, dest=dest, default=False, help=argparse.SUPPRESS
        )


def positive(text: str) -> int:
    """Return the number that a flag's value is, 1 or more: argparse's `type`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more; received {text}")
    return int(text)


def not_negative(text: str) -> int:
    """Return the number that a flag's value is, 0 or more: argparse's `type`."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected 0 or more; received {text}")
    return int(text)


def seconds(text: str) -> float:
    """Return the seconds that a flag's value is, 0 or more: argparse's `type`."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more; received {text}")
    return value


def port(text: str) -> int:
    """Return the number of a TCP port, 0 for any free one: argparse's `type`."""
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"expected 0 to {_LAST_PORT}; received {text}")
    return int(text)


def spark_setting(text: str) -> tuple[str, str]:
    """Return a setting of Spark's and its value: argparse's `type`."""
    name, equals, value = text.partition("=")
    if not equals or not name.startswith("spark."):
        raise argparse.ArgumentTypeError(f"expected spark.NAME=VALUE; received {text}")
    return name, value
