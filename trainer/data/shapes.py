"""A labelled set of drawn shapes with the image size and the file names of CIFAR-10.

For machines that have neither the real images nor a network: `torrefy data shapes --out DIR`.

All numbers come from raw Philox words by float32 additions, multiplications, divisions and
comparisons, which give the same bits on every machine: hence no sine and no NumPy distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from trainer.data.entries import datum_entries
from trainer.data.layout import Layout

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

LAYOUT = Layout("cifar10", has_mean=True)

_SIDE = 32
_SUBSAMPLES = 2  # per pixel and direction, for soft edges
_CHUNK = 500
_CLUTTER = 2
_KEY_DIGITS = 5
_LABEL_STREAM, _IMAGE_STREAM = 0, 1


def write_shapes(out: Path, seed: int = 0, train: int = 50_000, test: int = 10_000) -> list[Path]:
    """Draw the set into folder `out`, as databases and mean file of CIFAR-10's names.

    Args:
        out: What is there already is not drawn again.
        seed: Equal seeds give equal files on every machine.
        train: Number of training images.
        test: Number of test images.

    Returns:
        What was written.

    Raises:
        UsageError: `out` holds another set.
        DataError: Writing failed.
    """
    origin = f"shapes (seed {seed}, {train} + {test} images)"
    shape = (3, _SIDE, _SIDE)
    return LAYOUT.write(
        out,
        origin,
        train=lambda: datum_entries(draw_images(seed, 0, train), shape, _KEY_DIGITS),
        test=lambda: datum_entries(draw_images(seed, 1, test), shape, _KEY_DIGITS),
    )


def draw_images(seed: int, part: int, count: int) -> Iterator[tuple[int, bytes]]:
    """Draw labelled images; every class is as frequent as every other, within one.

    Args:
        seed: Of everything.
        part: Tells sets of one seed apart.
        count: Number of images.

    Yields:
        Label, index into `CLASSES`, and pixels (planes R, G, B).
    """
    order = _Random(seed, part, _LABEL_STREAM, 0).words(count).argsort(kind="stable")
    labels = (np.arange(count) % len(CLASSES))[order]
    for start in range(0, count, _CHUNK):
        chunk = labels[start : start + _CHUNK]
        pixels = _draw_chunk(chunk, _Random(seed, part, _IMAGE_STREAM, start))
        yield from (
            (int(label), image.tobytes()) for label, image in zip(chunk, pixels, strict=True)
        )


@final
class _Random:
    """Random numbers that NumPy promises not to change: raw words of a counter-based generator."""

    def __init__(self, seed: int, part: int, stream: int, start: int) -> None:
        key = np.array([seed % 2**64, part], np.uint64)
        self._generator = np.random.Philox(key=key, counter=[0, start, stream, 0])

    def words(self, count: int) -> NDArray[np.uint64]:
        return self._generator.random_raw(count)

    def uniform(self, low: float, high: float, *shape: int) -> Floats:
        """Return numbers in [low, high), on a grid of 2^24 steps."""
        words = self._generator.random_raw(shape) >> np.uint64(40)
        unit = words.astype(np.float32) * np.float32(2**-24)
        return unit * np.float32(high - low) + np.float32(low)


def _draw_chunk(labels: NDArray[np.int_], random: _Random) -> NDArray[np.uint8]:
    """Draw one image for each label.

    Shape: (N) -> (N, 3, H, W).
    """
    count = len(labels)
    background = random.uniform(0, 255, count, 3, 1, 1)
    contrast = random.uniform(50, 150, count, 3, 1, 1)
    foreground = background + np.where(background < 128, contrast, -contrast)
    image = background + _ramp(random, count)
    cover = _coverage(_inside(labels, *_grid(random, count, size=(7, 12), reach=6)))
    image += cover * (foreground - image)
    for _ in range(_CLUTTER):
        u, v = _grid(random, count, size=(1, 2.5), reach=16)
        spot = _coverage(u * u + v * v <= 1)
        image += spot * (random.uniform(0, 255, count, 3, 1, 1) - image)
    amplitude = random.uniform(10, 45, count, 1, 1, 1)
    image += amplitude * random.uniform(-1, 1, count, 3, _SIDE, _SIDE)
    return image.clip(0, 255).astype(np.uint8)


def _ramp(random: _Random, count: int) -> Floats:
    """Return a colour that changes evenly across the image, zero in its centre."""
    position: Floats = (np.arange(_SIDE, dtype=np.float32) - (_SIDE - 1) / 2) / np.float32(_SIDE)
    along_x = random.uniform(-60, 60, count, 3, 1, 1)
    along_y = random.uniform(-60, 60, count, 3, 1, 1)
    return along_x * position + along_y * position[:, None]


def _grid(
    random: _Random, count: int, size: tuple[float, float], reach: float
) -> tuple[Floats, Floats]:
    """Return coordinates in which a shape is centred, upright and of radius 1.

    Args:
        random: Gives centre, radius, rotation and stretch.
        count: Number of images.
        size: Least and greatest radius in pixels.
        reach: Greatest distance of the centre from the image's, in pixels and each direction.

    Shape: () -> two of (N, H*s, W*s), s subsamples.
    """
    step = np.arange(_SIDE * _SUBSAMPLES, dtype=np.float32) + np.float32(0.5)
    position = step / _SUBSAMPLES - np.float32(_SIDE / 2)
    centre_x, centre_y = random.uniform(-reach, reach, 2, count, 1, 1)
    radius = random.uniform(*size, count, 1, 1)
    stretch = random.uniform(0.8, 1.25, count, 1, 1)
    tangent = random.uniform(-1, 1, count, 1, 1)  # of half the angle
    sign = np.where(random.uniform(-1, 1, count, 1, 1) < 0, np.float32(-1), np.float32(1))
    cosine = sign * (1 - tangent * tangent) / (1 + tangent * tangent)
    sine = sign * 2 * tangent / (1 + tangent * tangent)
    x, y = position - centre_x, position[:, None] - centre_y
    return (cosine * x + sine * y) / radius * stretch, (cosine * y - sine * x) / radius / stretch


def _inside(labels: NDArray[np.int_], u: Floats, v: Floats) -> Mask:
    inside = np.empty(u.shape, np.bool_)
    for label, draw in enumerate(_DRAW.values()):
        mine = labels == label
        inside[mine] = draw(u[mine], v[mine])
    return inside


def _coverage(inside: Mask) -> Floats:
    """Return which part of every pixel is inside.

    Shape: (N, H*s, W*s) -> (N, 1, H, W).
    """
    parts = inside.reshape(len(inside), 1, _SIDE, _SUBSAMPLES, _SIDE, _SUBSAMPLES)
    cover: Floats = parts.mean(axis=(3, 5), dtype=np.float32)
    return cover


def _ring(u: Floats, v: Floats) -> Mask:
    squared = u * u + v * v
    return (squared > 0.36) & (squared <= 1)


def _frame(u: Floats, v: Floats) -> Mask:
    distance = np.maximum(abs(u), abs(v))
    return (distance > 0.5) & (distance <= 0.85)


def _triangle(u: Floats, v: Floats) -> Mask:
    return (v >= -0.6) & (np.float32(1.75) * abs(u) + v <= 1)


def _cross(u: Floats, v: Floats) -> Mask:
    return (np.minimum(abs(u), abs(v)) <= 0.27) & (np.maximum(abs(u), abs(v)) <= 1)


def _star(u: Floats, v: Floats) -> Mask:
    """A pentagram: the points beyond at most one of the five lines through its edges."""
    beyond = np.zeros(u.shape, np.int8)
    for x, y in _PENTAGON:
        beyond += np.float32(x) * u + np.float32(y) * v > 0.36
    return beyond <= 1


def _crescent(u: Floats, v: Floats) -> Mask:
    shifted: Floats = u - np.float32(0.55)
    return (u * u + v * v <= 1) & (shifted * shifted + v * v > 0.6)


def _corner(u: Floats, v: Floats) -> Mask:
    return (np.maximum(abs(u), abs(v)) <= 0.85) & (np.minimum(u, v) <= -0.3)


_PENTAGON = ((0, 1), (0.951, 0.309), (0.588, -0.809), (-0.588, -0.809), (-0.951, 0.309))

_DRAW: dict[str, Callable[[Floats, Floats], Mask]] = {
    "disc": lambda u, v: u * u + v * v <= 1,
    "ring": _ring,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) <= 0.85,
    "frame": _frame,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "crescent": _crescent,
    "bar": lambda u, v: (abs(u) <= 1) & (abs(v) <= 0.3),
    "corner": _corner,
}

CLASSES = tuple(_DRAW)
