"""The feed of a net: batches for all its data layers, read ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

from torch import Tensor

from prototxt_parser.data_spec import DataSpec
from trainer.data.prefetch import Prefetcher
from trainer.data.source_base import Position, Share, Source, SourceBatch
from trainer.data.sources import open_source
from trainer.errors import DataError


def open_feed(
    specs: Sequence[DataSpec],
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    data_dir: Path | None = None,
) -> NetFeed:
    """Open what the data layers of one net ask for.

    Args:
        specs: The data layers.
        seed: Of shuffling, random crops, mirroring and windows; equal seeds give equal batches.
        rank: Which worker of `world_size`.
        world_size: Number of workers: in the TRAIN phase each reads its own part of the data.
        data_dir: Where to look for files that do not exist as named.

    Raises:
        UsageError: A layer is of a type or has settings that cannot be used.
        DataError: A file that a layer names cannot be used.
    """
    with ExitStack() as opened:
        lanes = []
        for stream, spec in enumerate(specs):
            share = Share(seed, stream, rank, world_size, data_dir)
            source = open_source(spec, share)
            opened.callback(source.close)
            lanes.append(_Lane(spec, source))
        opened.pop_all()
    return NetFeed(lanes)


@final
class NetFeed:
    """A `solvers.feed.Feed` over the data layers of one net; see `open_feed`."""

    def __init__(self, lanes: Sequence[_Lane]) -> None:
        self._lanes = lanes

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every top, batch axis included, by the first of the data."""
        return {top: shape for lane in self._lanes for top, shape in lane.source.shapes.items()}

    def next(self) -> Mapping[str, Tensor]:
        """Return the next batch, float32 tensors by blob name.

        Raises:
            DataError: A file is damaged or gives nothing within the deadline.
            TrainerError: The feed is closed, or was opened before this process was forked.
        """
        return {top: blob for lane in self._lanes for top, blob in lane.next().items()}

    def skip(self, batches: int) -> None:
        """Pass over batches, by moving to where the one after them begins.

        Raises:
            DataError: A file is damaged.
        """
        for lane in self._lanes:
            lane.skip(batches)

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch that `next` returned, as JSON values."""
        return {"layers": [{"name": lane.name, **asdict(lane.position)} for lane in self._lanes]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position that `state_dict` returned: batches and random transforms repeat.

        Raises:
            DataError: The position is damaged, or of another net, other data or another number of
                workers.
        """
        try:
            places = [dict(place) for place in state["layers"]]
            names = [place.pop("name") for place in places]
            positions = [Position(**place) for place in places]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the saved data position is damaged ({error!r})") from error
        expected = [lane.name for lane in self._lanes]
        if names != expected:
            raise DataError(
                f"expected a saved data position for the layers {expected}, received one for"
                f" {names}: resume with the same net, or without the position"
            )
        for lane, position in zip(self._lanes, positions, strict=True):
            lane.seek(position)

    def close(self) -> None:
        """Stop reading ahead and let files go. Idempotent."""
        for lane in self._lanes:
            lane.close()


class _Lane:
    """One data layer: its source, and the thread that reads ahead from it."""

    def __init__(self, spec: DataSpec, source: Source) -> None:
        self.name = spec.name
        self.source = source
        self.position = source.position
        self._depth = spec.param.data_param.prefetch
        self._prefetcher = self._start()

    def _start(self) -> Prefetcher[SourceBatch]:
        return Prefetcher(self.source.read, self._depth, f"{self.source.where}: a batch")

    def next(self) -> Mapping[str, Tensor]:
        batch = self._prefetcher.get()
        self.position = batch.position
        return batch.blobs

    def seek(self, position: Position) -> None:
        if not self._prefetcher.close():
            raise DataError(f"{self.source.where}: cannot move while a read hangs; start anew")
        self.source.seek(position)
        self.position = self.source.position
        self._prefetcher = self._start()

    def skip(self, batches: int) -> None:
        if batches:
            self.seek(self.source.after(self.position, batches))

    def close(self) -> None:
        # While the thread reads, files have to stay open under it.
        if self._prefetcher.close():
            self.source.close()
