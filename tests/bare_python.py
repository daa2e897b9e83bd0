"""A Python like one of another machine: its environment, without torrefy, and without what a test
hides."""

import sys
from collections.abc import Sequence
from pathlib import Path

_SITE = """
import sys

class Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

# An editable installation is found by a finder of its own.
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
sys.meta_path.insert(0, Hidden)
"""
_PROGRAM = """#!/bin/sh
PYTHONPATH="{site}:$PYTHONPATH" exec {python} "$@"
"""


def bare_python(folder: Path, hidden: Sequence[str] = ()) -> Path:
    """Write a program that runs this Python so, and return its path.

    Args:
        folder: Where it is written.
        hidden: Top-level modules that it does not find.
    """
    site, program = folder / "bare", folder / "bare" / "python"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SITE.format(hidden=tuple(hidden)))
    program.write_text(_PROGRAM.format(site=site, python=sys.executable))
    program.chmod(0o755)
    return program
