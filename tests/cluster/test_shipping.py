"""Executors that have torch but not torrefy, or not even that."""

import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from pyspark import SparkContext

from bare_python import bare_python
from benchmarks.spark_standalone import Standalone
from prototxt_parser.layers import registry
from tiny_task import make_plan, run_plan
from trainer.cli import train_main
from trainer.cluster.session import open_context
from trainer.cluster.shipping import ship
from trainer.errors import TrainerError
from trainer.extensions import Extensions
from user_layer import MODULE, NET, SOLVER

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def context(
    cluster: Standalone, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SparkContext]:
    """Return a running Spark whose executors' Python does not find the checkout."""
    folder = tmp_path_factory.mktemp("executors")
    settings = (("spark.executorEnv.TORREFY_TEST", "7"), ("spark.app.name", "of the user"))
    plan = make_plan("deepspark", 2, folder, master=cluster.master, spark_conf=settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", str(bare_python(folder)))
        patch.setattr(sys, "path", list(sys.path))
        opened, is_ours = open_context(plan)
    assert is_ours
    yield opened
    opened.stop()


def test_code_and_settings_reach_executors(context: SparkContext) -> None:
    def look(numbers: Iterable[int]) -> Iterator[str]:
        import trainer.worker

        del numbers
        yield from (trainer.worker.__file__, os.environ["TORREFY_TEST"])

    assert context.appName == "of the user"
    found = context.parallelize(range(2), 2).mapPartitions(look).collect()
    places, values = found[::2], found[1::2]
    assert all(re.fullmatch(r".*/torrefy-[0-9a-f]{16}\.zip/trainer/worker\.py", p) for p in places)
    assert values == ["7", "7"]


def test_code_is_sent_once_and_the_driver_keeps_its_own(context: SparkContext) -> None:
    before = list(sys.path)
    ship(context, Extensions())
    assert len(context.listFiles) == 1
    assert sys.path == before


@pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])
def test_executors_without_torrefy_train(
    context: SparkContext, folder: Path, strategy: str
) -> None:
    outcome = run_plan(make_plan(strategy, 2, folder, master=context.master), folder)
    assert outcome.result.iteration == 40


def test_what_executors_lack_is_told_before_training(
    context: SparkContext, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = bare_python(folder, hidden=("torch", "lmdb"))
    monkeypatch.setattr(context, "pythonExec", str(python))
    with pytest.raises(TrainerError) as caught:
        run_plan(make_plan("deepspark", 2, folder, master=context.master), folder)
    lines = str(caught.value).splitlines()
    assert lines[0] == "workers cannot run on these executors:"
    assert lines[1] == f"  {socket.gethostname()}: torch is missing; lmdb is missing"
    assert lines[2].startswith(f"their Python is {python}. ")
    assert len(lines) == 3


def test_executors_without_python_are_told(
    context: SparkContext, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "pythonExec", "/nowhere/python")
    with pytest.raises(TrainerError, match=r": no Python of that name runs\ntheir Python is /nowh"):
        run_plan(make_plan("deepspark", 2, folder, master=context.master), folder)


def test_modules_of_the_user_reach_executors(
    context: SparkContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_LAYERS", dict(registry._LAYERS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("same_layer", "same_helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    log = f"from pathlib import Path\nPath({str(tmp_path)!r}, Path(__file__).parent.name).touch()\n"
    Path("same_layer.py").write_text(f"import same_helper\n{MODULE}")
    Path("same_helper.py").write_text(log)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    words = ["--solver", "solver.prototxt", "--layer-module", "same_layer.py", "--workers", "2"]
    assert train_main([*words, "--master", str(context.master)]) == 0
    assert Path("same_iter_4.caffemodel").exists()
    (carried,) = Path().glob("torrefy-modules-*")  # beside the file that the driver leaves
    assert re.fullmatch(r"torrefy-modules-[0-9a-f]{16}\.zip", carried.name)


def test_a_module_that_executors_cannot_import_is_told(
    context: SparkContext, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(folder)
    Path("only_here.py").write_text("import os\nif 'TORREFY_TEST' in os.environ: 1 / 0\n")
    monkeypatch.delenv("TORREFY_TEST", raising=False)
    plan = make_plan(
        "sparknet", 2, folder, master=context.master, extensions=Extensions(("only_here.py",))
    )
    with pytest.raises(TrainerError) as caught:
        run_plan(plan, folder)
    monkeypatch.delitem(sys.modules, "only_here")
    lines = str(caught.value).splitlines()
    assert lines[0] == "workers cannot run on these executors:"
    assert lines[1].startswith(
        f"  {socket.gethostname()}: UsageError: --layer-module only_here.py: "
    )
    assert "(ZeroDivisionError: division by zero)" in lines[1]
    assert len(lines) == 2
