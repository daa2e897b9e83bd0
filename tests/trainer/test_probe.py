"""What keeps workers from running on an executor's Python, in words."""

import re
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from trainer.cluster.probe import REQUIRED, Findings, describe, satisfies

PYTHON = "{}.{}".format(*sys.version_info[:2])
GOOD = {"torch": "2.13.0+cpu", "numpy": "", "protobuf": "6.33.6"}


def test_the_requirements_are_those_of_setup_cfg() -> None:
    config = ConfigParser()
    config.read(Path(__file__).resolve().parents[2] / "setup.cfg")
    lines = config["options"]["install_requires"] + config["options.extras_require"]["spark"]
    stated = dict(re.findall(r"^(\w+)(\S+)$", lines, re.MULTILINE))
    for driver_alone in ("pyspark", "cryptography"):  # executors have a Spark of their own
        del stated[driver_alone]
    assert {name: bounds for name, (_, bounds) in REQUIRED.items()} == stated


@pytest.mark.parametrize(
    ("python", "versions", "expected"),
    [
        (PYTHON, GOOD, ""),
        (PYTHON, GOOD | {"torch": None, "own": None}, "torch is missing; own is missing"),
        (PYTHON, GOOD | {"protobuf": "5.29.1"}, "protobuf 5.29.1, expected >=6.31.1,<8"),
        ("3.8", GOOD | {"torch": None}, f"Python 3.8, and the driver has {PYTHON}"),
        (None, {}, "no Python of that name runs"),
    ],
)
def test_problems_are_told(
    python: str | None, versions: dict[str, str | None], expected: str
) -> None:
    assert describe(Findings("host", python, versions)) == expected


@pytest.mark.parametrize(
    ("version", "bounds", "expected"),
    [
        ("2.13.0+cpu", ">=2.6", True),
        ("2.6", ">=2.6", True),
        ("2.5.1", ">=2.6", False),
        ("10.0rc1", ">=10", True),
        ("7.36.0", ">=6.31.1,<8", True),
        ("8.0", ">=6.31.1,<8", False),
        ("6.31", ">=6.31.1,<8", False),
    ],
)
def test_versions_keep_bounds(version: str, bounds: str, expected: bool) -> None:
    assert satisfies(version, bounds) is expected
