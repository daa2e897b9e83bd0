"""Window files: images, and in each some windows with a class and an overlap."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar, final

import numpy as np

from trainer.errors import DataError

T = TypeVar("T")

_FIELDS = 7
_LARGEST = 2**31 - 1


class Window(NamedTuple):
    """A window of an image; its corners are pixels that belong to it.

    Attributes:
        image: Number of the image.
        label: Class; 0 for background.
        left: Column of its first corner.
        top: Row of its first corner.
        right: Column of its last corner.
        bottom: Row of its last corner.
        line: Line of the window file where it ends.
    """

    image: int
    label: int
    left: int
    top: int
    right: int
    bottom: int
    line: int


@final
class Windows:
    """Many windows in little memory: a window file may list millions."""

    def __init__(self) -> None:
        self._numbers = array("i")

    def __len__(self) -> int:
        return len(self._numbers) // _FIELDS

    def __getitem__(self, index: int) -> Window:
        if not 0 <= index < len(self):
            raise IndexError(f"no window {index} of {len(self)}")
        return Window(*self._numbers[index * _FIELDS : (index + 1) * _FIELDS])

    def append(self, window: Window) -> None:
        """Add a window."""
        self._numbers.extend(window)


@dataclass(frozen=True)
class WindowFile:
    """What a window file lists.

    Attributes:
        path: The file.
        images: Paths of the images, as listed.
        foreground: Windows that show an object.
        background: Windows that show none; their label is 0.
    """

    path: Path
    images: list[str]
    foreground: Windows
    background: Windows


def read_windows(file: Path, foreground_overlap: float, background_overlap: float) -> WindowFile:
    """Read a window file; windows between the two thresholds are dropped.

    It holds for each image, apart by whitespace: `#`, its number, its path, channels, height,
    width, the number of windows; and for each of these class, overlap, x1, y1, x2, y2.

    Args:
        file: The file.
        foreground_overlap: Least overlap of a foreground window.
        background_overlap: Windows below it are background.

    Differs from Caffe: what is no number, images that are not numbered 0, 1, 2 and so on and other
    than 3 channels are refused; Caffe reads on with whatever then stands in memory.

    Raises:
        DataError: The file cannot be read, is empty or malformed; the message has the line.

    Source: BVLC/caffe src/caffe/layers/window_data_layer.cpp, DataLayerSetUp.
    """
    found = WindowFile(file, [], Windows(), Windows())
    words = _Words(file)
    try:
        while (mark := words.next()) is not None:
            if mark != b"#":
                raise words.error("`#` before an image", mark)
            _read_image(
                words, found, np.float32(foreground_overlap), np.float32(background_overlap)
            )
    except OSError as error:
        raise DataError(f"{file}: the window file cannot be read: {error}") from error
    if not found.images:
        raise DataError(f"{file}: Window file is empty")
    return found


def _read_image(words: _Words, found: WindowFile, least: np.float32, below: np.float32) -> None:
    number = len(found.images)
    if (received := words.integer("the number of the image")) != number:
        raise words.error(f"images numbered from 0 on, so image {number}", received)
    found.images.append(os.fsdecode(words.take(bytes, "the path of the image")))
    if (channels := words.integer("the channels of the image")) != 3:
        raise words.error("3 channels, as images are read in colour", channels)
    words.integer("the height of the image")
    words.integer("the width of the image")
    for _ in range(words.integer("the number of windows")):
        label = words.integer("the class of a window")
        overlap = words.take(np.float32, "the overlap of a window")
        left, top, right, bottom = (words.integer(name) for name in ("x1", "y1", "x2", "y2"))
        window = Window(number, label, left, top, right, bottom, words.line)
        if overlap >= least:
            if label <= 0:
                raise words.error("a class > 0 of a foreground window", label)
            found.foreground.append(_sound(window, words))
        elif overlap < below:
            found.background.append(_sound(window._replace(label=0), words))


def _sound(window: Window, words: _Words) -> Window:
    if window.right < window.left or window.bottom < window.top:
        raise words.error("x1 <= x2 and y1 <= y2", " ".join(map(str, window[2:6])))
    return window


@final
class _Words:
    """The words of a file, and the line of the last one taken."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.line = 0
        self._words = self._read()

    def _read(self) -> Iterator[bytes]:
        with self._file.open("rb") as lines:
            for self.line, text in enumerate(lines, 1):
                yield from text.split()

    def next(self) -> bytes | None:
        return next(self._words, None)

    def take(self, parse: Callable[[bytes], T], what: str) -> T:
        word = self.next()
        if word is None:
            raise self.error(what, "the end of the file")
        try:
            return parse(word)
        except ValueError as error:
            raise self.error(what, word) from error

    def integer(self, what: str) -> int:
        number = self.take(int, what)
        if abs(number) > _LARGEST:
            raise self.error(what, number)
        return number

    def error(self, expected: str, received: object) -> DataError:
        if isinstance(received, bytes):
            received = os.fsdecode(received[:40])
        return DataError(f"{self._file}:{self.line}: expected {expected}; received {received}")
