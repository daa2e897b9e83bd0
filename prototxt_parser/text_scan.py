"""A first look at prototxt text: are its brackets and quotes sound, and where do its layers begin?

It runs before the parser, which recurses once for each level, and in one pass, so that a hostile
text ends in an error and not in a RecursionError.
"""

from __future__ import annotations

import re

from prototxt_parser.errors import PrototxtError

MAX_DEPTH = 100

_MARK = re.compile(
    r"""
    \#[^\n]*                            # comment
    | (?P<string> "(?:[^"\\\n]++|\\.)*+" | '(?:[^'\\\n]++|\\.)*+' )
    | (?P<quote> ["'] )                 # of a string that its line does not end
    | (?P<open> [{<\[] )
    | (?P<close> [}>\]] )
    | (?P<layer> \blayers?\b )
    """,
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">", "[": "]"}


class _Scan:
    """One pass over a text: open brackets, and the layers found so far."""

    def __init__(self, text: str, filename: str) -> None:
        self.text = text
        self.filename = filename
        self.layers: list[tuple[int, int]] = []
        self.open: list[tuple[str, tuple[int, int]]] = []
        # The word "layer" or "layers" of the top level whose value is being read, if any.
        self.word: tuple[int, int] | None = None
        self.line, self.line_start, self.seen = 1, 0, 0

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, which must not lie before the last one asked for."""
        breaks = self.text.count("\n", self.seen, offset)
        if breaks:
            self.line += breaks
            self.line_start = self.text.rindex("\n", self.seen, offset) + 1
        self.seen = offset
        return self.line, offset - self.line_start + 1

    def error(self, place: tuple[int, int], message: str) -> PrototxtError:
        return PrototxtError(f"{self.filename}:{place[0]}:{place[1]}: {message}")

    def run(self) -> None:
        for mark in _MARK.finditer(self.text):
            if mark.lastgroup == "quote":
                raise self.error(self.place(mark.start()), "string without an end on its line")
            if mark.lastgroup == "open":
                self.enter(mark)
            elif mark.lastgroup == "close":
                self.leave(mark)
            elif mark.lastgroup == "layer" and not self.open:
                self.word = self.place(mark.start())
        if self.open:
            bracket, place = self.open[-1]
            raise self.error(place, f'"{bracket}" is never closed')

    def enter(self, mark: re.Match[str]) -> None:
        place = self.place(mark.start())
        if len(self.open) == MAX_DEPTH:
            raise self.error(place, f"nested deeper than {MAX_DEPTH} levels")
        if self.word and mark[0] != "[":
            if not self.open:
                self.layers.append(self.word)
            elif len(self.open) == 1 and self.open[0][0] == "[":
                self.layers.append(place)
        self.open.append((mark[0], place))

    def leave(self, mark: re.Match[str]) -> None:
        place = self.place(mark.start())
        if not self.open:
            raise self.error(place, f'"{mark[0]}" closes nothing')
        bracket, opened = self.open.pop()
        if mark[0] != _CLOSING[bracket]:
            expected = f'expected "{_CLOSING[bracket]}" for the "{bracket}" of line {opened[0]}'
            raise self.error(place, f'{expected}; received "{mark[0]}"')
        if not self.open:
            self.word = None


def scan(text: str, filename: str) -> list[tuple[int, int]]:
    """Check brackets and quotes, and find the layers.

    Returns:
        Line and column, counted from 1, of each `layer` or `layers` block of the top level.

    Raises:
        PrototxtError: A bracket or a quote has no partner, or brackets nest too deep.
    """
    found = _Scan(text, filename)
    found.run()
    return found.layers
