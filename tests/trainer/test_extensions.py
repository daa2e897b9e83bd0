"""Layers of users, named on the command line: found, loaded on every worker, refused in words."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from prototxt_parser import custom_fields, user_code
from prototxt_parser.layers import registry
from tiny_task import make_plan, run_plan, write_data
from trainer.cli import main, train_main
from trainer.errors import TrainerError, UsageError
from trainer.extensions import Extensions, add_extension_flags, extensions_of
from user_layer import MODULE, NET, SOLVER

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ssd_layers.py"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module, a net and its solver; nothing of it outlives the test."""
    monkeypatch.setattr(registry, "_LAYERS", dict(registry._LAYERS))
    monkeypatch.setattr(custom_fields, "_FIELDS", {})
    monkeypatch.setattr(user_code, "_allowed", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("same_layer", "bad", "ssd_layers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "same_layer.py").write_text(MODULE)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parsed(*words: str) -> Extensions:
    parser = argparse.ArgumentParser()
    add_extension_flags(parser)
    return extensions_of(parser.parse_args(words))


def test_flags_may_be_repeated(folder: Path) -> None:
    found = parsed("--layer-module", "a", "--allow-python-layer", "b", "--layer-module=c")
    assert found == Extensions(("a", "c"), ("b",), str(folder))
    assert parsed() == Extensions((), (), str(folder))


@pytest.mark.parametrize("name", ["same_layer", "same_layer.py", "./same_layer.py"])
def test_a_module_is_found_by_name_and_by_path_and_loaded_once(folder: Path, name: str) -> None:
    extensions = Extensions((name,))
    extensions.install()
    extensions.install()
    assert registry.layer_class("Same").__name__ == "Same"


def test_the_example_loads_by_its_path(folder: Path) -> None:
    Extensions((str(EXAMPLE),)).install()
    assert {"Permute", "Normalize"} <= set(registry.layer_types())


def test_python_layers_are_allowed_by_name(folder: Path) -> None:
    Extensions((), ("same_layer",)).install()
    assert user_code.import_allowed("same_layer").__name__ == "same_layer"


def test_without_modules_the_path_stays_as_it_is(folder: Path) -> None:
    before = list(sys.path)
    Extensions().install()
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no_such", "", "no_such: cannot be imported (ModuleNotFoundError: No module named"),
        ("no/such.py", "", "no/such.py: cannot be imported (ModuleNotFoundError"),
        ("bad.py", "1 +", "bad.py: cannot be imported (SyntaxError"),
        ("bad.py", "1 / 0", "bad.py: cannot be imported (ZeroDivisionError: division by zero)"),
        ("bad.py", "raise SystemExit(0)", "bad.py: cannot be imported (SystemExit: 0)"),
        ("bad", MODULE.replace('"Same"', '"ReLU"'), "(ValueError: layer type 'ReLU' is registered"),
        ("json.py", "", "json.py: another module of that name is loaded, "),
    ],
)
def test_a_module_that_cannot_be_loaded_is_named_with_its_reason(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, message: str
) -> None:
    if content or name == "json.py":
        (folder / f"{Path(name).stem}.py").write_text(content)
    assert main(["train", "--solver", "solver.prototxt", "--layer-module", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --layer-module ")
    assert message in line


@pytest.mark.parametrize("flags", [[], ["--workers", "2", "--master", "in-process"]])
def test_train_runs_a_net_with_a_layer_of_the_users(folder: Path, flags: list[str]) -> None:
    words = ["--solver", "solver.prototxt", "--layer-module", "same_layer", "--seed", "3", *flags]
    assert train_main(words) == 0
    assert (folder / "same_iter_4.caffemodel").exists()


def test_without_the_module_the_type_is_unknown_and_the_remedy_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_main(["--solver", "solver.prototxt"]) == 2
    err = capsys.readouterr().err
    assert 'net.prototxt:4:1: layer "s" (Same): Unknown layer type: Same' in err
    assert "--layer-module" in err


def test_a_worker_that_lacks_the_module_says_so(folder: Path) -> None:
    write_data(folder)
    plan = make_plan("sparknet", 2, folder, extensions=Extensions(("no_such",)))
    with pytest.raises(TrainerError, match=r"worker 0.*--layer-module no_such: cannot be imported"):
        run_plan(plan, folder, test_iter=[])


def test_install_raises_a_usage_error(folder: Path) -> None:
    with pytest.raises(UsageError, match="every worker needs to reach"):
        Extensions(("no_such",)).install()
