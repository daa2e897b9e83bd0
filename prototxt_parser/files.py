"""Finding and reading net and solver files."""

from __future__ import annotations

import re
from pathlib import Path

from prototxt_parser.definition import NetDefinition
from prototxt_parser.errors import PrototxtError
from prototxt_parser.known_layers import refuse_unknown_types
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import did_you_mean, layer_positions, parse_text
from prototxt_parser.upgrade import trace_upgrade, upgrade_solver

_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_HERE = Path(__file__).parent
# Installed, the models lie in the package; in a checkout, in a folder of their own.
_SHIPPED = next(
    (
        folder
        for folder in (_HERE / "models", _HERE.parent / "models" / "prototxt")
        if folder.is_dir()
    ),
    _HERE / "models",
)


def list_models() -> list[str]:
    """Return the file names of the shipped nets, solvers and settings, sorted."""
    return sorted(path.name for path in _SHIPPED.glob("*.prototxt"))


def find_model(name: str | Path) -> Path:
    """Find a prototxt file.

    Args:
        name: A path, absolute or from the working directory; or the bare name of a shipped file,
            which a file of that name in the working directory hides.

    Returns:
        A path that exists.

    Raises:
        PrototxtError: There is no such file; says where it was looked for.
    """
    path = Path(name)
    try:
        if path.exists():
            return path
    except OSError as error:
        raise PrototxtError(f"{name}: cannot be read: {error.strerror}") from error
    if path.name != str(name):
        raise PrototxtError(f"{name}: no such file; looked in {path.parent.absolute()}")
    shipped = _SHIPPED / path
    if shipped.is_file():
        return shipped
    hint = did_you_mean(f"{path.name.removesuffix('.prototxt')}.prototxt", list_models())
    raise PrototxtError(
        f"{name}: no such file; looked in {Path.cwd()} and among the models of {_SHIPPED}{hint}"
    )


def read_text(path: str | Path) -> str:
    """Return the text of a prototxt file.

    Raises:
        PrototxtError: It is a folder, it cannot be read, or it is not text.
    """
    try:
        text = decode_text(Path(path).read_bytes())
    except OSError as error:
        raise PrototxtError(f"{path}: cannot be read: {error.strerror}") from error
    if text is None:
        raise PrototxtError(f"{path}: not text but a binary file; are these weights?")
    return text


def decode_text(data: bytes) -> str | None:
    """Return the text that a file holds, or None if it is binary.

    Comments may be in any encoding, as for Caffe's parser; strings have to be UTF-8.
    """
    if _CONTROL.search(data):
        return None
    # Editors on Windows may put a byte order mark in front.
    return data.decode("utf-8-sig", errors="surrogateescape")


def read_net(path: str | Path) -> NetDefinition:
    """Read a net and upgrade it from whatever older form it has.

    Args:
        path: As `find_model` takes it.

    Raises:
        PrototxtError: The file is not there, is no net, or cannot be upgraded. Fields of unknown
            types are unknown, too: it names all such types first.
    """
    found = find_model(path)
    text = read_text(found)
    try:
        original = parse_text(text, caffe_pb2.NetParameter(), str(found))
    except PrototxtError:
        refuse_unknown_types(text, str(found))
        raise
    upgrade = trace_upgrade(original, str(found))
    written = [f"{found}:{line}:{column}" for line, column in layer_positions(text)]
    places = tuple("" if origin is None else written[origin] for origin in upgrade.origins)
    return NetDefinition(upgrade.net, str(found), places)


def read_solver(path: str | Path) -> caffe_pb2.SolverParameter:
    """Read a solver and upgrade it; nets that it names are not opened.

    Without a snapshot_prefix the solver gets its own path without the extension, and one that is
    a folder gets the solver's name added, as in Caffe.

    Args:
        path: As `find_model` takes it.

    Raises:
        PrototxtError: The file is not there, is no solver, or cannot be upgraded.

    Source: caffe/src/caffe/util/upgrade_proto.cpp, ReadSolverParamsFromTextFileOrDie,
        UpgradeSnapshotPrefixProperty.
    """
    found = find_model(path)
    parsed = parse_text(read_text(found), caffe_pb2.SolverParameter(), str(found))
    param = upgrade_solver(parsed, str(found))
    if not param.snapshot_prefix:
        param.snapshot_prefix = str(found.with_suffix(""))
    elif Path(param.snapshot_prefix).is_dir():
        param.snapshot_prefix = str(Path(param.snapshot_prefix, found.stem))
    return param
