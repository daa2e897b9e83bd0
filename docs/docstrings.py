"""Docstrings of layers and rules, taken apart for the generated pages."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

_LABEL = re.compile(
    r"(Shape|Blobs|Source|Like Caffe[^:]*|Like PyTorch|Differs from [^:]+): "
    r"|(Raises) (?=LayerError)"
)
_END = re.compile(r"^(Args|Attributes|Raises|Returns):$", re.MULTILINE)


@dataclass(frozen=True)
class Docstring:
    """What a docstring says.

    Attributes:
        summary: Its first paragraph, a formula or a sentence.
        text: Paragraphs without a label.
        notes: Paragraphs with one (Shape, Blobs, Differs from …, Source), in their order.
    """

    summary: str
    text: tuple[str, ...]
    notes: tuple[tuple[str, str], ...]

    def note(self, start: str) -> str:
        """Return the first note whose label starts with `start`, "" if there is none."""
        return next((text for label, text in self.notes if label.startswith(start)), "")


def read_docstring(documented: object) -> Docstring:
    """Take the docstring of a class or function apart."""
    paragraphs = list(_paragraphs(inspect.getdoc(documented) or ""))
    labelled = [(match, text) for text in paragraphs if (match := _LABEL.match(text))]
    plain = [text for text in paragraphs if not _LABEL.match(text)]
    notes = tuple((match[1] or match[2], text[match.end() :]) for match, text in labelled)
    return Docstring(plain[0] if plain else "", tuple(plain[1:]), notes)


def _paragraphs(text: str) -> list[str]:
    """Return paragraphs in one line each; a line that starts with a label begins a new one.

    What follows for programmers (Args, Attributes, …) is left out.
    """
    found: list[list[str]] = [[]]
    for line in _END.split(text)[0].splitlines():
        if not line.strip() or _LABEL.match(line):
            found.append([])
        found[-1].append(line.strip())
    return [joined for lines in found if (joined := " ".join(filter(None, lines)))]
