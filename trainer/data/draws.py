"""Random numbers that a run can take up again anywhere: each depends on its place alone."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_WORDS_PER_ITEM = 4  # one block of Philox
_WORD = 2**64
_ITEMS, _ORDERS, _START = range(3)  # what numbers are drawn for


@final
class Draws:
    """Random numbers of one user, such as a data layer.

    Args:
        seed: Equal seeds give equal numbers.
        stream: Tells users of one seed apart.
    """

    def __init__(self, seed: int, stream: int) -> None:
        self._key = np.array([seed % _WORD, stream % _WORD], np.uint64)

    def for_items(self, first: int, count: int) -> Words:
        """Return four random words for each of the items numbered `first` and so on.

        Shape: (count, 4).
        """
        return self._words(_ITEMS, (count, _WORDS_PER_ITEM), first)

    def order(self, count: int, epoch: int, part: int = 0) -> NDArray[np.intp]:
        """Return the numbers below `count` in the order of an epoch, all orders equally likely.

        Args:
            count: How many.
            epoch: How often the data has been read before.
            part: Tells the parts of an epoch apart.
        """
        # NumPy may change its shuffle between versions, but not the words nor a stable sort.
        return np.argsort(self._words(_ORDERS, (count,), 0, part, epoch), kind="stable")

    def start(self, count: int) -> int:
        """Return a number below `count`."""
        return int(self._words(_START, (1,))[0]) % count

    def _words(
        self, purpose: int, shape: tuple[int, ...], block: int = 0, part: int = 0, epoch: int = 0
    ) -> Words:
        # Words are drawn block after block, so only the lowest counter moves.
        counter = [block, part, epoch, purpose]
        return np.random.Philox(key=self._key, counter=counter).random_raw(shape)
