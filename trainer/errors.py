"""Errors of the package: one root, so that a caller needs one `except`."""

from __future__ import annotations

# Part of what is said of parameters that are numbers no more. It comes from a worker through
# Flight, Spark and another process, where only texts arrive.
DIVERGES = "training diverges"


class TrainerError(Exception):
    """A run cannot start or go on; the message says what was expected, what came, and the remedy.

    The command line ends with exit status 1.
    """


class UsageError(TrainerError):
    """The command, a flag or a file named by it is wrong: exit status 2."""


class LostWorkerError(TrainerError):
    """Workers have ended without a word of their own: killed, or their host is gone."""


class DataError(TrainerError):
    """A database, an image or a mean file is missing, damaged or of the wrong shape."""
