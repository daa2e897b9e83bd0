"""A first look at prototxt text: are its brackets and quotes sound, and where do its layers begin?

It runs before the parser, which recurses once for each level, and in one pass, so that a hostile
text ends in an error and not in a RecursionError.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Block:
    """A field of a layer with a message for a value, `name { … }`.

    Attributes:
        layer: Index of its `layer` among the text's; `layers` of old nets do not count.
        name: The field.
        place: Line and column of the first character inside the brackets.
        start: Offset of the name.
        inside: Offset of that first character.
        end: Offset of the closing bracket.
    """

    layer: int
    name: str
    place: tuple[int, int]
    start: int
    inside: int
    end: int


class _Scan:
    """One pass over a text: open brackets, and the layers found so far."""

    def __init__(self, text: str, filename: str, names: Iterable[str] = ()) -> None:
        self.text = text
        self.filename = filename
        self.pattern = _pattern(names)
        self.blocks: list[Block] = []
        self.name: re.Match[str] | None = None  # the last of `names` in the open layer
        self.block: tuple[str, int, int, tuple[int, int]] | None = None  # the open one
        self.current = -1  # index of the open `layer`
        self.layers: list[tuple[int, int]] = []
        self.open: list[tuple[str, tuple[int, int]]] = []
        # The word "layer" or "layers" of the top level whose value is being read, if any.
        self.word: tuple[int, int] | None = None
        self.is_current = False  # whether that word is "layer"
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
        for mark in self.pattern.finditer(self.text):
            if mark.lastgroup == "quote":
                raise self.error(self.place(mark.start()), "string without an end on its line")
            if mark.lastgroup == "open":
                self.enter(mark)
            elif mark.lastgroup == "close":
                self.leave(mark)
            elif mark.lastgroup == "layer" and not self.open:
                self.word = self.place(mark.start())
                self.is_current = mark[0] == "layer"
            elif mark.lastgroup == "name" and self.in_layer:
                self.name = mark
        if self.open:
            bracket, place = self.open[-1]
            raise self.error(place, f'"{bracket}" is never closed')

    def enter(self, mark: re.Match[str]) -> None:
        place = self.place(mark.start())
        if len(self.open) == MAX_DEPTH:
            raise self.error(place, f"nested deeper than {MAX_DEPTH} levels")
        if self.word and mark[0] != "[":
            if not self.open:
                self.add_layer(self.word)
            elif len(self.open) == 1 and self.open[0][0] == "[":
                self.add_layer(place)
            elif self.name and self.in_layer and self.follows(self.name, mark):
                inside = (place[0], place[1] + 1)
                self.block = (self.name[0], self.name.start(), mark.end(), inside)
        self.name = None
        self.open.append((mark[0], place))

    def add_layer(self, place: tuple[int, int]) -> None:
        self.layers.append(place)
        self.current += self.is_current

    @property
    def in_layer(self) -> bool:
        """Whether the innermost bracket is that of a `layer`."""
        depth = 2 if self.open and self.open[0][0] == "[" else 1
        return self.word is not None and self.is_current and len(self.open) == depth

    def follows(self, name: re.Match[str], bracket: re.Match[str]) -> bool:
        return self.text[name.end() : bracket.start()].strip(" \t\r\n:") == ""

    def leave(self, mark: re.Match[str]) -> None:
        place = self.place(mark.start())
        if not self.open:
            raise self.error(place, f'"{mark[0]}" closes nothing')
        bracket, opened = self.open.pop()
        if mark[0] != _CLOSING[bracket]:
            expected = f'expected "{_CLOSING[bracket]}" for the "{bracket}" of line {opened[0]}'
            raise self.error(place, f'{expected}; received "{mark[0]}"')
        if self.block and self.in_layer:
            name, start, inside, where = self.block
            self.blocks.append(Block(self.current, name, where, start, inside, mark.start()))
            self.block = None
        if not self.open:
            self.word = None


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern of what a scan looks at, `names` among it."""
    wanted = "|".join(re.escape(name) for name in names)
    return (
        re.compile(rf"{_MARK.pattern} | (?P<name> \b(?:{wanted})\b )", _MARK.flags)
        if wanted
        else _MARK
    )


def find_blocks(text: str, names: Iterable[str], filename: str) -> list[Block]:
    """Find the fields called one of `names` in the `layer` blocks of a net's text.

    Raises:
        PrototxtError: As `scan`.
    """
    found = _Scan(text, filename, names)
    found.run()
    return found.blocks


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
