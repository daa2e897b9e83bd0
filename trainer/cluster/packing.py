"""The code that workers on other machines run, as zip archives that Python imports from.

An archive is named by its content, so that two versions never pass for each other.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from zipimport import zipimporter

from trainer.errors import TrainerError
from trainer.extensions import CARRIED, Extensions

PACKAGES = ("prototxt_parser", "solvers", "trainer", "pycaffe", "torrefy")
PACKAGE_ROOT = Path(__file__).resolve().parents[2]  # a checkout, or site-packages
_DATE = (1980, 1, 1, 0, 0, 0)  # the same content gives the same bytes


def torrefy_archive(folder: Path) -> Path:
    """Return an archive of torrefy's own packages: the one that it runs from, or a new one.

    Args:
        folder: Where a new one is written.

    Raises:
        TrainerError: A package is not there, or the archive cannot be written.
    """
    loader = getattr(_spec("trainer"), "loader", None)
    if isinstance(loader, zipimporter):
        return Path(loader.archive)
    files: dict[str, Path] = {}
    for package in PACKAGES:
        own = PACKAGE_ROOT / package
        # In a checkout `torrefy` lies elsewhere.
        files |= _package(own if own.is_dir() else PACKAGE_ROOT / "trainer" / "api" / package)
    return _write(files, folder, "torrefy")


def modules_archive(extensions: Extensions, folder: Path) -> Path | None:
    """Return a new archive of the user's modules, None if there is nothing to carry.

    In it are the modules that are named, and of what lies beside them the modules and packages that
    they import, so that all have the same names on a worker. What is installed is not: see
    `installed_modules`.

    Args:
        extensions: Already installed here.
        folder: Where it is written.

    Raises:
        TrainerError: A module cannot be read, or the archive cannot be written.
    """
    files: dict[str, Path] = {}
    for spec in _specs(extensions):
        if spec.origin is not None and not _is_installed(spec):
            _collect(spec.name, Path(spec.origin), files)
    return _write(files, folder, CARRIED) if files else None


def installed_modules(extensions: Extensions) -> tuple[str, ...]:
    """Return the top-level names of the user's modules that workers must have installed."""
    own = {spec.name for spec in _specs(extensions) if _is_installed(spec)}
    return tuple(sorted(own - sys.stdlib_module_names))


def _specs(extensions: Extensions) -> Iterator[ModuleSpec]:
    """Yield where the module, or the package around it, of every name was found."""
    for name in (*extensions.layer_modules, *extensions.python_layers):
        top = Path(name).stem if name.endswith(".py") else name.partition(".")[0]
        spec = _spec(top)
        if spec is not None:
            yield spec


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # a module that says nothing of where it is from
        return None


def _is_installed(spec: ModuleSpec) -> bool:
    """Return whether a module came with Python, or by pip, or in an archive."""
    if spec.origin is None or not Path(spec.origin).is_file():
        return True
    homes = {
        Path(path).resolve()
        for name, path in sysconfig.get_paths().items()
        if name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    return bool(homes & set(Path(spec.origin).resolve().parents))


def _collect(name: str, origin: Path, files: dict[str, Path]) -> None:
    """Add a module, or the package that it is, and what it imports from beside it."""
    is_package = origin.name == "__init__.py"
    own = _package(origin.parent) if is_package else {f"{name}.py": origin}
    folder = origin.parents[1] if is_package else origin.parent
    new = {path: place for path, place in own.items() if path not in files}
    files |= new
    for imported in sorted({each for place in new.values() for each in _imports(place)}):
        for place in (folder / f"{imported}.py", folder / imported / "__init__.py"):
            if place.is_file():
                _collect(imported, place, files)


def _imports(place: Path) -> Iterator[str]:
    """Yield the top-level names that a module imports."""
    try:
        tree = ast.parse(place.read_bytes(), str(place))
    except (OSError, SyntaxError, ValueError) as error:
        raise TrainerError(f"{place}: cannot be sent to the workers: {error}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def _package(folder: Path) -> dict[str, Path]:
    """Return the modules of a package and its subpackages by their path in an archive."""
    if not (folder / "__init__.py").is_file():
        raise TrainerError(f"{folder}: no package there to send to the workers")
    parts = [part for part in folder.iterdir() if (part / "__init__.py").is_file()]
    own = {place.relative_to(folder.parent).as_posix(): place for place in folder.glob("*.py")}
    for part in parts:
        own |= {f"{folder.name}/{path}": place for path, place in _package(part).items()}
    return own


def _write(files: Mapping[str, Path], folder: Path, stem: str) -> Path:
    try:
        contents = {name: files[name].read_bytes() for name in sorted(files)}
        digest = hashlib.sha256()
        for name, content in contents.items():
            digest.update(f"{name}\n{len(content)}\n".encode() + content)
        archive = folder / f"{stem}-{digest.hexdigest()[:16]}.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
            for name, content in contents.items():
                target.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED)
    except OSError as error:
        raise TrainerError(f"{error.filename or folder}: {error.strerror}") from error
    return archive
