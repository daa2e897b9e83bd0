"""Errors of the package: one root, so that a caller needs one `except`."""

from __future__ import annotations


class SolverError(Exception):
    """A solver's settings, a snapshot or a training step is wrong; the message holds the remedy."""
