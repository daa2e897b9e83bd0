"""The wheel: what is in it, and that it works away from the checkout."""

import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("prototxt_parser", "solvers", "trainer", "pycaffe")
INSTALLED = {*PACKAGES, "torrefy"}  # which lies in trainer/api
SOURCES = (*PACKAGES, "models", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def run(*arguments: str | Path, cwd: Path) -> str:
    command = [sys.executable, *arguments]
    result = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy: a build in the checkout leaves folders there, and packs old ones."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=skip)
        else:
            shutil.copy(ROOT / name, source)
    pip = ("-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, source, cwd=folder)
    return next(folder.glob("torrefy-*.whl"))


@pytest.fixture(scope="module")
def files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_every_module(files: set[str]) -> None:
    modules = {
        path.relative_to(ROOT).as_posix().removeprefix("trainer/api/")
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    assert modules
    assert modules <= files


def test_wheel_holds_the_models(files: set[str]) -> None:
    models = {
        f"prototxt_parser/models/{path.name}"
        for path in (ROOT / "models" / "prototxt").glob("*.prototxt")
    }
    assert "prototxt_parser/models/cifar10_quick.prototxt" in models
    assert models <= files


def test_wheel_holds_the_schema_and_the_type_markers(files: set[str]) -> None:
    schema = {f"caffe{suffix}" for suffix in (".proto", "_pb2.py", "_pb2.pyi")}
    markers = {f"{package}/py.typed" for package in INSTALLED}
    assert markers | {f"prototxt_parser/proto/{name}" for name in schema} <= files


def test_wheel_holds_the_licence_and_the_commands(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = next(name for name in names if name.endswith("/entry_points.txt"))
        commands = ConfigParser()
        commands.read_string(archive.read(entry_points).decode())
    assert any(name.endswith("/LICENSE") for name in names)
    assert set(commands["console_scripts"]) == {"train", "torrefy"}


def test_wheel_holds_nothing_else(files: set[str]) -> None:
    assert {name.split("/")[0] for name in files if ".dist-info/" not in name} == INSTALLED


def test_installed_wheel_finds_its_nets_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = ("-m", "pip", "install", "--no-deps", "--no-index", "--no-compile")
    run(*pip, "--target", target, wheel, cwd=elsewhere)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "from prototxt_parser import find_model, read_net\n"
        "print(find_model('cifar10_quick.prototxt'))\n"
        "print(*(layer.name for layer in read_net('cifar10_quick.prototxt').param.layer))\n"
    )
    found, layers = run("-c", code, cwd=elsewhere).splitlines()
    assert Path(found) == target / "prototxt_parser" / "models" / "cifar10_quick.prototxt"
    assert {"conv1", "conv2", "conv3", "ip1", "ip2"} <= set(layers.split())
