"""Imports run one way, and a one-process run loads neither Spark nor Arrow."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("prototxt_parser", "solvers", "trainer", "pycaffe")  # each may import those before it
HOMES = {"pyspark": "trainer/cluster", "pyarrow.flight": "trainer/parameter_server"}
SOURCES = sorted(path for package in LAYERS for path in (ROOT / package).rglob("*.py"))


def imported(source: str, package: str) -> Iterator[str]:
    """Yield the full name of everything that a module of `package` imports, at any depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = [*(parents if node.level else []), *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def imports_of(path: Path) -> set[str]:
    folder = path.parent.relative_to(ROOT)
    return set(imported(path.read_text(encoding="utf-8"), ".".join(folder.parts)))


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b, c as d", {"a.b", "c"}),
        ("from pyarrow import flight", {"pyarrow.flight"}),
        ("def f():\n    from a.b import c, d", {"a.b.c", "a.b.d"}),
        ("from . import base", {"top.mid.base"}),
        ("from ..errors import E", {"top.errors.E"}),
    ],
)
def test_imports_are_found_in_every_form(source: str, names: set[str]) -> None:
    assert set(imported(source, "top.mid")) == names


@pytest.mark.parametrize("package", LAYERS)
def test_every_package_has_sources(package: str) -> None:
    assert any(path.is_relative_to(ROOT / package) for path in SOURCES)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    above = LAYERS[LAYERS.index(package) + 1 :]
    assert not [name for name in imports_of(path) if name.split(".")[0] in (*above, "tests")]


@pytest.mark.parametrize("library", HOMES)
def test_only_its_home_imports(library: str) -> None:
    home = ROOT / HOMES[library]
    users = {path for path in SOURCES for name in imports_of(path) if is_within(name, library)}
    assert users
    assert not [path for path in users if not path.is_relative_to(home)]


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("package", ["prototxt_parser", "solvers", "trainer.cli"])
def test_a_package_imports_without_spark_and_arrow(package: str) -> None:
    block = "import sys; sys.modules.update(dict.fromkeys(['pyspark', 'pyarrow', 'py4j']))"
    assert run_python(f"{block}; import {package}; print('imported')") == "imported\n"


def test_the_command_line_loads_neither_spark_nor_arrow() -> None:
    loaded = run_python("import sys, trainer.cli; print(*sys.modules)").split()
    assert "trainer.cli" in loaded
    assert not {"pyspark", "pyarrow"} & set(loaded)
