"""The smoothed loss that Caffe displays.

Source: caffe/src/caffe/solver.cpp, Solver::UpdateSmoothedLoss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class LossWindow:
    """Mean of the last `size` losses, kept the way Caffe keeps it.

    Args:
        size: `average_loss`.
        start: Iteration at which the window begins.

    Attributes:
        value: The smoothed loss.
    """

    def __init__(self, size: int, start: int) -> None:
        self._size, self._start = size, start
        self._losses: list[float] = []
        self.value = 0.0

    def add(self, loss: float, iteration: int) -> None:
        """Take in the loss of `iteration`."""
        if len(self._losses) < self._size:
            self._losses.append(loss)
            count = len(self._losses)
            self.value = (self.value * (count - 1) + loss) / count
        else:
            index = (iteration - self._start) % self._size
            self.value += (loss - self._losses[index]) / self._size
            self._losses[index] = loss

    def state_dict(self) -> dict[str, Any]:
        """Return the window as JSON values."""
        return {"start": self._start, "losses": self._losses, "value": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue a saved window."""
        self._start, self.value = state["start"], state["value"]
        self._losses = list(state["losses"])[: self._size]
