"""How every benchmark says where it ran, and prints its figures."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch

from trainer.machine import machine


def report(name: str, figures: dict[str, Any], out: Path | None) -> None:
    """Print figures with the machine as JSON, and add them to `out` as one line."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    record = {"benchmark": name, "machine": machine() | versions, **figures}
    print(json.dumps(record, indent=1))
    if out is not None:
        with out.open("a") as file:
            file.write(json.dumps(record) + "\n")
