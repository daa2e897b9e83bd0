"""The batches of a worker whose data are the rows of a DataFrame's partition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trainer.cluster.dataframe.inputs import BlobMaker, Input
from trainer.cluster.dataframe.rows import Column
from trainer.data.draws import Draws
from trainer.data.prefetch import Prefetcher
from trainer.errors import DataError, TrainerError

_AHEAD = 3
_WORD = 2.0**64


@final
class Partition:
    """The rows that a task has been given, in memory.

    Args:
        inputs: What the columns are for, in their order.
        batches: Arrow record batches; all of them are read. A column more holds weights.

    Raises:
        DataError: There is no row, or a row does not fit.
    """

    def __init__(self, inputs: Sequence[Input], batches: Iterable[Any]) -> None:
        self.inputs = inputs
        self._columns = [Column(each) for each in inputs]
        weights: list[NDArray[np.float64]] = []
        for batch in batches:
            if not batch.num_rows:
                continue
            for number, column in enumerate(self._columns):
                column.add(batch.column(number))
            if batch.num_columns > len(inputs):
                weights.append(batch.column(len(inputs)).to_numpy(zero_copy_only=False))
        if not len(self):
            raise DataError(
                "this worker's partition of the DataFrame has no rows: use fewer workers or more "
                "rows, or set forceRepartition"
            )
        self.weights = np.concatenate(weights) if weights else None
        if self.weights is not None:
            _check_weights(self.weights)

    def __len__(self) -> int:
        return len(self._columns[0])

    def rows(self, numbers: Iterable[int]) -> list[list[Any]]:
        """Return the rows of these numbers, for each input."""
        chosen = list(numbers)
        return [[column[number] for number in chosen] for column in self._columns]


def _check_weights(weights: NDArray[np.float64]) -> None:
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if wrong.size:
        raise DataError(
            f"row {wrong[0]} of the partition: expected a weight of 0 or more; received "
            f"{weights[wrong[0]]:g} (null counts as nan)"
        )
    if not weights.any():
        raise DataError("all weights of this worker's partition are 0: it has nothing to learn")


@final
class RowFeed:
    """A `solvers.feed.Feed` over a partition, without end.

    Every epoch has an order of its own, so a short partition is simply read more often. With
    weights each row of a batch is drawn, as often as its weight says, and there are no epochs.
    Orders, draws, crops and mirrors follow from the seed and the number of the item alone.

    Args:
        partition: The rows.
        batch_size: Rows of a batch.
        seed: Of all that is random.
        rank: Tells the workers of a run apart.
    """

    def __init__(self, partition: Partition, batch_size: int, seed: int, rank: int) -> None:
        self._partition, self._batch_size = partition, batch_size
        self._draws = Draws(seed, rank << 32)
        self._make = BlobMaker(partition.inputs, seed, rank << 32)
        self._epoch, self._order = -1, np.empty(0, np.intp)
        weights = partition.weights
        self._sums = None if weights is None else np.cumsum(weights / weights.sum())
        self._given = self._made = 0
        self._prefetcher = self._start()

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every blob, batch axis included."""
        return shapes_of(self._partition.inputs, self._batch_size)

    def next(self) -> Mapping[str, Tensor]:
        """Return the next batch, float32 tensors by blob name.

        Raises:
            DataError: An image cannot be decoded.
        """
        batch = self._prefetcher.get()
        self._given += self._batch_size
        return batch

    def skip(self, batches: int) -> None:
        """Pass over batches."""
        self._move(self._given + batches * self._batch_size)

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch that `next` returned."""
        return {"item": self._given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position that `state_dict` returned."""
        self._move(int(state["item"]))

    def close(self) -> None:
        """Stop making batches. Idempotent."""
        self._prefetcher.close()

    def _start(self) -> Prefetcher[Mapping[str, Tensor]]:
        return Prefetcher(self._next_batch, _AHEAD, "rows of the DataFrame: a batch")

    def _move(self, item: int) -> None:
        self._prefetcher.close()
        self._given = self._made = item
        self._prefetcher = self._start()

    def _next_batch(self) -> Mapping[str, Tensor]:
        first, self._made = self._made, self._made + self._batch_size
        return self._make(self._partition.rows(self._rows_of(first)), first)

    def _rows_of(self, first: int) -> list[int]:
        if self._sums is not None:
            # The fourth word of an item is the one that its transform does not use.
            words = self._draws.for_items(first, self._batch_size)[:, 3]
            drawn = np.searchsorted(self._sums, words / _WORD, side="right")
            return [min(int(row), len(self._partition) - 1) for row in drawn]
        return [self._row_of(item) for item in range(first, first + self._batch_size)]

    def _row_of(self, item: int) -> int:
        epoch, place = divmod(item, len(self._partition))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._draws.order(len(self._partition), epoch)
        return int(self._order[place])


def shapes_of(inputs: Sequence[Input], batch_size: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every blob that `inputs` fill."""
    return {each.blob: each.top_shape(batch_size) for each in inputs}


@final
class ShapesOnly:
    """The feed of the driver's own net, which is never run: only shapes.

    Args:
        shapes: Of every blob, batch axis included.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes

    def next(self) -> Mapping[str, Tensor]:
        """Refuse: rows never come to the driver.

        Raises:
            TrainerError: Always.
        """
        raise TrainerError(
            "the rows of a DataFrame are with the workers, and this strategy's settings would have "
            "the driver train: leave out warm_start"
        )

    def skip(self, batches: int) -> None:
        """Pass over nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return an empty position."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take any position."""

    def close(self) -> None:
        """Do nothing."""
