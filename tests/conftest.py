"""One thread and fixed seeds for every test, skips with reasons, the count of golden cases."""

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from golden_cases import GOLDEN, case_names

# For the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Start every test from the same random states."""
    random.seed(1701)
    torch.manual_seed(1701)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder that holds cifar10/, cifar100/ and mnist/; for tests marked `data`."""
    folder = Path(os.environ["TORREFY_DATA"]).resolve()
    if not folder.is_dir():
        raise NotADirectoryError(f"TORREFY_DATA={folder}: no such folder")
    return folder


def missing_means(item: pytest.Item) -> str | None:
    """Return why this machine cannot run a test, None if it can."""
    if item.get_closest_marker("cluster") and not java():
        return "needs Java 17: no java on the PATH, and JAVA_HOME names none"
    if item.get_closest_marker("data") and "TORREFY_DATA" not in os.environ:
        return "needs real data sets: TORREFY_DATA names no folder"
    return None


def java() -> str | None:
    """Return the program that Spark would start."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which(Path(home, "bin", "java") if home else "java")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run here; have reports carry the golden cases of their tests."""
    for item in items:
        if reason := missing_means(item):
            item.add_marker(pytest.mark.skip(reason=reason))
        for mark in item.iter_markers("golden"):
            for name in mark.args:
                if not (GOLDEN / name / "case.json").exists():
                    raise pytest.UsageError(f"{item.nodeid}: tests/golden has no case {name}")
                item.user_properties.append(("golden", name))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many golden cases ran, of those there are, per folder."""
    ran = {
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
        for name, value in report.user_properties
        if name == "golden"
    }
    if not ran:
        return
    terminalreporter.section("golden cases run")
    counts = Counter(name.split("/")[0] for name in ran)
    recorded = Counter(name.split("/")[0] for name in case_names())
    for folder in sorted(recorded):
        terminalreporter.line(f"{folder:<9} {counts[folder]:>4} of {recorded[folder]}")
