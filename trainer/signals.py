"""SIGINT and SIGHUP during training, with Caffe's meanings.

Source: caffe/src/caffe/util/signal_handler.cpp, caffe/tools/caffe.cpp.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from solvers import Action


class SignalPoll:
    """Remembers signals until the solver polls for them.

    Args:
        sigint: What SIGINT asks for (Caffe: stop).
        sighup: What SIGHUP asks for (Caffe: snapshot).
    """

    def __init__(self, sigint: Action, sighup: Action) -> None:
        self._effects = {signal.SIGHUP: sighup, signal.SIGINT: sigint}
        self._received: set[int] = set()

    def __call__(self) -> Action:
        """Return what is pending, SIGHUP first, and forget it."""
        for number, action in self._effects.items():
            if number in self._received:
                self._received.discard(number)
                return action
        return Action.NONE

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Catch both signals in the block. A second SIGINT before the first took effect kills."""
        previous = {number: signal.signal(number, self._remember) for number in self._effects}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number in self._received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received.add(number)
