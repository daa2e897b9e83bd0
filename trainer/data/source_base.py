"""What every source of batches is, and what stands in all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from prototxt_parser.data_spec import DataSpec
from prototxt_parser.errors import LayerError
from prototxt_parser.layers.registry import layer_class
from prototxt_parser.proto import caffe_pb2
from trainer.data.entry_range import entry_range
from trainer.data.mean_file import MeanImage, read_mean
from trainer.data.paths import find_data, find_shard, is_sharded, shard_folder
from trainer.errors import DataError, UsageError


@dataclass(frozen=True)
class Position:
    """A place in the endless sequence of a layer's items.

    Attributes:
        item: Items before it since the run began.
        key: Key of the database entry there, in hexadecimal, to find it without counting; "" if
            it has to be found by counting.
        begin: First entry of the part of the data that is read.
        end: Entry after its last.

    Raises:
        ValueError, TypeError: It is no place; one read from a file may be anything.
    """

    item: int
    key: str
    begin: int
    end: int

    def __post_init__(self) -> None:
        if self.item < 0 or not 0 <= self.begin < self.end:
            raise ValueError(f"no item {self.item} of entries {self.begin} to {self.end}")
        bytes.fromhex(self.key)


@dataclass(frozen=True)
class SourceBatch:
    """One batch by blob name, and the position after it."""

    blobs: Mapping[str, Tensor]
    position: Position


@dataclass(frozen=True)
class Share:
    """Which worker reads, with which random numbers, and where it may look for files.

    Attributes:
        seed: Of everything that is drawn; one for the whole run.
        stream: Tells the layers of a net and the workers of a run apart.
        rank: Which worker.
        world_size: Number of workers.
        data_dir: Where else to look for files. If `{rank}` is in it, each of several workers has a
            folder of its own, and reads all that is there.
        has_shard: It is this worker's own folder.
    """

    seed: int
    stream: int
    rank: int = 0
    world_size: int = 1
    data_dir: Path | None = None
    has_shard: bool = False

    def in_phase(self, phase: int) -> Share:
        """Return what this worker reads: its own part in the TRAIN phase, else all there is."""
        if phase != caffe_pb2.TRAIN:
            return replace(self, rank=0, world_size=1, data_dir=shard_folder(self.data_dir, 0))
        # Workers of one run share the seed and must not share the random numbers.
        own = replace(self, stream=self.stream + (self.rank << 32))
        if not is_sharded(self.data_dir):
            return own
        folder, has_shard = shard_folder(self.data_dir, self.rank), self.world_size > 1
        return replace(own, rank=0, world_size=1, data_dir=folder, has_shard=has_shard)

    def find(self, source: str) -> Path:
        """Return the path of the database or list that a layer names.

        Raises:
            DataError: It is not there.
        """
        if self.has_shard and self.data_dir is not None:
            return find_shard(source, self.data_dir)
        return find_data(source, self.data_dir)

    def part_of(self, path: Path, count: int) -> tuple[int, int]:
        """Return the first of `count` entries that this worker reads, and the one after its last.

        Raises:
            DataError: There are fewer entries than workers.
        """
        return entry_range(path, count, self.rank, self.world_size)


class Source(ABC):
    """Makes what one data layer asks for, batch after batch, without end.

    A subclass opens its files in `__init__`, sets `shapes`, `_begin` and `_end`, and makes a batch
    in `_tops`. Everything that it reads or draws follows from `_item`, so that a run can go on from
    any position.

    Args:
        spec: The layer.
        share: Who reads.

    Attributes:
        where: Place, name and type of the layer, for messages.
        shapes: Shape of each top, by its name.

    Raises:
        UsageError: The layer's settings cannot be used.
        DataError: A file that it names cannot be used.
    """

    shapes: Mapping[str, tuple[int, ...]]
    _begin: int
    _end: int

    def __init__(self, spec: DataSpec, share: Share) -> None:
        place = f"{spec.where}: " if spec.where else ""
        self.where = f'{place}layer "{spec.name}" ({spec.param.type})'
        self._spec = spec
        self._share = share.in_phase(spec.phase)
        self._item = 0
        with self._named_errors():
            _check_settings(spec)
            source: str = getattr(spec.param, spec.settings_field).source
            self._path = self._share.find(source)

    @property
    def position(self) -> Position:
        """Where the next batch begins."""
        return Position(self._item, "", self._begin, self._end)

    def read(self) -> SourceBatch:
        """Return the next batch; after the last entry the first one follows.

        Raises:
            DataError: A file is missing or damaged, or does not fit the settings.
        """
        with self._named_errors():
            tops = self._tops()
        self._item += self._spec.batch_size
        return SourceBatch(dict(zip(self._spec.tops, tops, strict=False)), self.position)

    def after(self, position: Position, batches: int) -> Position:
        """Return the place `batches` batches after `position`."""
        return replace(position, item=position.item + batches * self._spec.batch_size, key="")

    def seek(self, position: Position) -> None:
        """Go to a `position` of this or of an equal source.

        Raises:
            DataError: It is of another part of the data, or the data has changed.
        """
        with self._named_errors():
            if (position.begin, position.end) != (self._begin, self._end):
                raise DataError(
                    f"the saved position belongs to entries {position.begin} to {position.end};"
                    f" this run reads entries {self._begin} to {self._end} of {self._path}:"
                    " use the same data and number of workers, or start without the position"
                )
            self._move(position)
        self._item = position.item

    def close(self) -> None:  # noqa: B027  (most keep nothing open)
        """Let files go. Idempotent."""

    @abstractmethod
    def _tops(self) -> Sequence[Tensor]:
        """Return the tops for the items from `_item` on; there may be more than are asked for."""

    def _move(self, position: Position) -> None:  # noqa: B027  (most only count)
        """Make ready for a position, where counting items is not enough."""

    def _read_mean(self) -> MeanImage | None:
        """Return the image of `transform_param.mean_file`, if that is set."""
        name = self._spec.param.transform_param.mean_file
        return read_mean(find_data(name, self._share.data_dir)) if name else None

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except UsageError as error:
            raise UsageError(f"{self.where}: {error}") from error
        except DataError as error:
            raise DataError(f"{self.where}: {error}") from error


def _check_settings(spec: DataSpec) -> None:
    try:
        layer_class(spec.param.type).top_count.check(spec.param.type, "top", len(spec.tops))
    except LayerError as error:
        raise UsageError(str(error)) from error
    if not spec.batch_size:
        raise UsageError(f"{spec.settings_field}.batch_size must be > 0; received 0")
    if not spec.param.data_param.prefetch:
        raise UsageError("data_param.prefetch must be > 0; received 0")
    if not getattr(spec.param, spec.settings_field).source:
        raise UsageError(f"{spec.settings_field}.source must name a file or folder; received none")
