"""`torrefy package`, and spark-submit of what it writes."""

import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

from bare_python import bare_python
from benchmarks.spark_standalone import HOST, Standalone
from prototxt_parser.text import print_text
from tiny_task import tiny_net, tiny_param
from trainer.cli import main

pytestmark = pytest.mark.cluster

SUBMIT = Path(pyspark.__file__).parent / "bin" / "spark-submit"


def submit(
    folder: Path, master: str, drivers_python: Path | str, with_archive: bool, *words: str
) -> subprocess.CompletedProcess[str]:
    """Submit `train` as a user would, and wait for its end."""
    archive = ["--py-files", "package/torrefy.zip"] if with_archive else []
    files = ["--net", "net.prototxt", "--solver", "solver.prototxt", "--data", str(folder)]
    command = [str(SUBMIT), "--master", master, "--conf", "spark.executor.memory=1100m", *archive]
    own = {
        "PYSPARK_PYTHON": str(folder / "bare" / "python"),
        "PYSPARK_DRIVER_PYTHON": str(drivers_python),
        "SPARK_LOCAL_IP": HOST,
    }
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | own
    return subprocess.run(
        [*command, "package/train.py", *files, *words],
        **{"cwd": folder, "env": environment, "timeout": 300},
        **{"capture_output": True, "text": True, "check": False},
    )


@pytest.fixture
def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with data, net, solver, package, and a Python without torrefy."""
    bare_python(folder)
    (folder / "net.prototxt").write_text(print_text(tiny_net().param))
    (folder / "solver.prototxt").write_text(print_text(tiny_param(folder)))
    monkeypatch.chdir(folder)
    assert main(["package", "--out", "package"]) == 0
    return folder


@pytest.mark.parametrize("has_torrefy", [True, False])
def test_spark_submit_trains(cluster: Standalone, prepared: Path, has_torrefy: bool) -> None:
    python = sys.executable if has_torrefy else prepared / "bare" / "python"
    words = ("--workers", "2", "--strategy", "deepspark")
    result = submit(prepared, cluster.master, python, not has_torrefy, *words)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (prepared / "tiny_iter_40.caffemodel").exists()
    assert cluster.master in result.stdout
