"""Code that a definition names: which modules it may name, and what their `import caffe` finds."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from prototxt_parser.errors import LayerError

OUR_CAFFE = "pycaffe"

_allowed: set[str] = set()
_policy = {"loaded": False}


class UserCodeError(LayerError):
    """Code of the user failed; what it raised is the `__cause__`."""


def allow_python_layers(*modules: str) -> None:
    """Let Python layers of any net in this process run code of these modules.

    A net's file names the module, and importing it runs it: so nobody but the user decides. The
    modules' `import caffe` finds our own package unless Caffe itself is installed.

    Args:
        modules: Names as the files' `python_param { module }` has them.
    """
    _allowed.update(modules)
    name_our_package_caffe()


def allow_loaded_modules() -> None:
    """Let Python layers use classes of modules that the program itself has imported by then."""
    _policy["loaded"] = True


def import_allowed(module: str) -> ModuleType:
    """Import a module that a Python layer names.

    Raises:
        LayerError: Nobody allowed it.
        UserCodeError: The import failed.
    """
    if _policy["loaded"] and module in sys.modules:
        return sys.modules[module]
    if module not in _allowed:
        raise LayerError(
            f'it would import and run the Python module "{module}". If you trust it, allow it: '
            f'--allow-python-layer {module}, or allow_python_layers("{module}") from Python'
        )
    try:
        return importlib.import_module(module)
    except (
        Exception,
        SystemExit,
    ) as error:  # whatever the user's code raises, the user has to see it
        raise UserCodeError(
            f'cannot import the module "{module}" ({type(error).__name__}: {error}); '
            "is its folder on PYTHONPATH?"
        ) from error


def name_our_package_caffe() -> None:
    """Have `import caffe` find our package where no other `caffe` is installed. Twice is once."""
    if not any(isinstance(finder, _CaffeFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _CaffeFinder())


class _CaffeFinder:
    """Resolves `caffe` and `caffe.x` to the very modules `pycaffe` and `pycaffe.x`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where to load `name` from; None leaves it to the other finders."""
        del path, target
        if name == "caffe":
            is_ours = PathFinder.find_spec(name) is None
        else:
            caffe = sys.modules.get("caffe")
            is_ours = name.startswith("caffe.") and getattr(caffe, "__name__", "") == OUR_CAFFE
        return ModuleSpec(name, self) if is_ours else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python; `exec_module` puts ours in its place."""

    def exec_module(self, module: ModuleType) -> None:
        """Put our module into `sys.modules` under the name asked for."""
        ours = OUR_CAFFE + module.__name__.removeprefix("caffe")
        sys.modules[module.__name__] = importlib.import_module(ours)
