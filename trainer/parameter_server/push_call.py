"""How a push looks in the command of a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.links import Move
from trainer.parameter_server.books import Push
from trainer.parameter_server.flight_server import integer, number, truth


def read_push(command: Mapping[str, Any]) -> Push:
    """Return the push in a command.

    Raises:
        KeyError, TypeError, ValueError: There is none; the caller is told so.
    """
    rank, attempt = integer(command, "rank"), integer(command, "attempt")
    sequence, iteration = integer(command, "sequence"), integer(command, "iteration")
    move = Move(command["move"]["rule"], number(command["move"], "rate"))
    return Push(rank, attempt, sequence, iteration, move, truth(command, "is_answered"))
