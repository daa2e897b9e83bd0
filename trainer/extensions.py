"""The user's own modules: layers and strategies to register, and what Python layers may name."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prototxt_parser.layers.python import allow_python_layers
from trainer.errors import UsageError

# How an archive of such modules begins that a run has sent to its workers.
CARRIED = "torrefy-modules"


@dataclass(frozen=True)
class Extensions:
    """What a run adds to torrefy's own layers; travels to every worker.

    Attributes:
        layer_modules: Modules that register layer classes or strategies, by name, or by the path of
            a `.py` file.
        python_layers: Modules that a net's `Python` layers may name.
        folder: Where modules are looked for besides Python's own path.
    """

    layer_modules: tuple[str, ...] = ()
    python_layers: tuple[str, ...] = ()
    folder: str = field(default_factory=lambda: str(Path.cwd()))

    def install(self) -> None:
        """Import the modules, and allow the others; before a net is built. Twice is once.

        Raises:
            UsageError: A module cannot be imported; says which, and why.
        """
        if self.layer_modules or self.python_layers:
            _search(self.folder)
        for name in self.layer_modules:
            self._import(name)
        if self.python_layers:
            allow_python_layers(*self.python_layers)

    def _import(self, name: str) -> None:
        path = Path(self.folder, name) if name.endswith(".py") else None
        if path is not None:
            _search(str(path.parent))
        try:
            module = importlib.import_module(path.stem if path else name)
        except (
            Exception,
            SystemExit,
        ) as error:  # whatever the user's code raises, the user has to see it
            raise UsageError(
                f"--layer-module {name}: cannot be imported ({type(error).__name__}: {error}); "
                f"looked in {path.parent if path else self.folder} and on Python's path, which "
                "every worker needs to reach"
            ) from error
        found = getattr(module, "__file__", None)
        if path is not None and not _is_same(path, found):
            raise UsageError(
                f"--layer-module {name}: another module of that name is loaded, "
                f"{found or 'built into Python'}; rename the file"
            )


def add_extension_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--layer-module` and `--allow-python-layer` to a command that builds nets."""
    group = parser.add_argument_group("layers of your own")
    group.add_argument(
        "--layer-module",
        action="append",
        default=[],
        metavar="MODULE",
        help="import this module (a name, or the path of a .py file), which registers layer "
        "classes or strategies; may be given again",
    )
    group.add_argument(
        "--allow-python-layer",
        action="append",
        default=[],
        metavar="MODULE",
        help="let Python layers of the net run code of this module; may be given again",
    )


def install_named(argv: Sequence[str]) -> None:
    """Import the modules that a command line names, before its parser is made.

    A strategy that one of them registers has flags of its own.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_extension_flags(parser)
    try:
        args, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError:  # the parser of the command says it better
        return
    extensions_of(args).install()


def extensions_of(args: argparse.Namespace) -> Extensions:
    """Return what the flags name."""
    return Extensions(tuple(args.layer_module), tuple(args.allow_python_layer))


def _is_same(path: Path, found: str | None) -> bool:
    """Return whether a module comes from the file `path`, or from an archive that carries it."""
    if found is None:
        return False
    is_carried = Path(found).parent.name.startswith(CARRIED)
    return is_carried or (path.exists() and path.samefile(found))


def _search(folder: str) -> None:
    """Have Python look for modules in `folder` too, after everything else."""
    if folder not in sys.path:
        sys.path.append(folder)
