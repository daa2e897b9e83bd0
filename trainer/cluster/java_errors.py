"""What Spark's Java process says of an error."""

from __future__ import annotations

from typing import Any


def java_message(error: Exception) -> str:
    """Return what a Java exception says, or an error of Python's own."""
    java: Any = getattr(error, "java_exception", None)
    return str(java.getMessage() if java is not None else error)


def first_line(error: Exception) -> str:
    """Return what a Java exception says, without its stack."""
    return java_message(error).partition("\n")[0]
