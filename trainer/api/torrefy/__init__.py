"""What other programs import; the work is done by `trainer` and the packages below it."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("torrefy")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "unknown"
