"""Processes that must not outlive the one that has started them; imports nothing slow."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent() -> None:
    """Have Linux end this process with its parent, even if it is stopped then.

    To be exact, with the parent's thread that has started it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
