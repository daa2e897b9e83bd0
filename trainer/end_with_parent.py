"""Processes that must not outlive the one that has started them; imports nothing slow."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent(parent: int) -> None:
    """Have Linux end this process with its parent, even if it is stopped then.

    If the parent has ended already, this process ends here. On another system nothing happens.

    Args:
        parent: Id of the process that has started this one; to be exact, of the thread.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
