"""What every benchmark says about where it ran, and how it prints its figures."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Return processor, cores and versions."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def report(name: str, figures: dict[str, Any], out: Path | None) -> None:
    """Print figures with the machine as JSON, and add them to `out` as one line."""
    record = {"benchmark": name, "machine": machine(), **figures}
    print(json.dumps(record, indent=1))
    if out is not None:
        with out.open("a") as file:
            file.write(json.dumps(record) + "\n")
