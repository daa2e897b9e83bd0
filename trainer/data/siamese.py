"""Random pairs of MNIST's images, as the siamese net trains on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainer.data.draws import Draws
from trainer.data.mnist import MNIST_SHAPE

SIAMESE_SHAPE = (2, *MNIST_SHAPE[1:])


def siamese_pairs(
    images: Sequence[tuple[int, bytes]], seed: int, stream: int
) -> Iterator[tuple[int, bytes]]:
    """Yield as many pairs as there are images: 1 for equal classes or 0, and the pixels of both.

    Args:
        images: Label and pixels; both of a pair are drawn from all of them.
        seed: Equal seeds give equal pairs.
        stream: Tells sets of one seed apart.

    Source: BVLC/caffe examples/siamese/convert_mnist_siamese_data.cpp, convert_dataset.
    """
    count = len(images)
    for words in Draws(seed, stream).for_items(0, count):
        (label, pixels), (other, others) = (images[int(word) % count] for word in words[:2])
        yield int(label == other), pixels + others
