"""The pages of docs/ say what the code does: generated ones are fresh, named tests exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from docs.docstrings import read_docstring
from docs.generate import pages
from docs.layer_page import own_types
from experiments.figures import block, filled
from golden_cases import GOLDEN, case_names
from prototxt_parser.layers.common_fields import COMMON_FIELDS
from prototxt_parser.layers.registry import layer_class
from prototxt_parser.proto.caffe_pb2 import LayerParameter, SolverParameter
from solvers.fields import HONOURED, IGNORED
from trainer.comparison.outcomes import gather
from trainer.comparison.results import read_rows

ROOT = Path(__file__).resolve().parents[1]
TRAPS = (ROOT / "docs/traps.md").read_text(encoding="utf-8")
TEST_NAME = re.compile(r"`([\w/]+\.py)::(\w+)`")
CASE_NAME = re.compile(r"`((?:curves|formats|layers|logs|nets|resume|runs|solvers)/[^`.]+)`")
ROW = re.compile(r"^\| (\d+) \| (.+) \| (.+) \|$", re.MULTILINE)


@pytest.mark.parametrize("name", pages())
def test_generated_pages_are_fresh(name: str) -> None:
    kept = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert kept == pages()[name], "run: python -m docs.generate"


def test_links_between_pages_lead_somewhere() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_trap_is_in_the_table_once() -> None:
    assert [int(number) for number, _, _ in ROW.findall(TRAPS)] == list(range(1, 71))


def test_every_trap_names_a_test() -> None:
    for number, _, held in ROW.findall(TRAPS):
        assert TEST_NAME.search(held) or CASE_NAME.search(held), number


def test_every_test_that_the_traps_name_exists() -> None:
    names = set(TEST_NAME.findall(TRAPS))
    assert names
    for path, name in sorted(names):
        tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"{path}::{name}"


def test_every_case_that_the_traps_name_exists() -> None:
    assert set(CASE_NAME.findall(TRAPS)) <= set(case_names()), GOLDEN


@pytest.mark.parametrize("name", own_types())
def test_every_layer_says_how_it_compares_with_pytorch(name: str) -> None:
    found = read_docstring(layer_class(name))
    assert found.summary
    assert found.note("Shape")
    assert found.note("Source")
    assert found.note("Like PyTorch") or found.note("Differs from PyTorch")


def test_every_field_of_every_layer_has_a_meaning() -> None:
    general = [field.name for field in LayerParameter.DESCRIPTOR.fields if field.number < 100]
    assert list(COMMON_FIELDS) == general


def test_every_field_of_a_solver_file_has_a_meaning() -> None:
    names = [field.name for field in SolverParameter.DESCRIPTOR.fields]
    assert sorted([*HONOURED, *IGNORED]) == sorted(names)


def test_honoured_solver_fields_are_read_and_ignored_ones_are_not() -> None:
    words = words_of("solvers", "trainer", "prototxt_parser")
    assert words >= HONOURED.keys()
    assert not words & IGNORED.keys()


def words_of(*packages: str) -> set[str]:
    """Attribute names, and strings that are names, in the code of packages but for fields.py."""
    found: set[str] = set()
    for path in (path for package in packages for path in (ROOT / package).rglob("*.py")):
        if path.name == "fields.py" or path.name.endswith("_pb2.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and str(node.value).isidentifier():
                found.add(str(node.value))
    return found


def test_the_study_s_page_says_what_its_results_say() -> None:
    page = (ROOT / "docs/comparison.md").read_text(encoding="utf-8")
    results = sorted((ROOT / "experiments/results").glob("*.jsonl"))
    assert results
    for path in results:
        assert filled(page, path.stem, block(gather(read_rows(path)))) == page, (
            "run: python -m experiments.figures"
        )
        for kind in ("samples", "seconds", "final"):
            assert f"comparison/{path.stem}_{kind}.svg" in page
            assert (ROOT / f"docs/comparison/{path.stem}_{kind}.svg").exists()
