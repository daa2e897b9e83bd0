"""The batches of one `Data` layer."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from prototxt_parser.data_spec import DataSpec
from prototxt_parser.proto import caffe_pb2
from trainer.data.datum import Image, decode_datum, parse_datum
from trainer.data.lmdb_reader import LmdbReader
from trainer.data.mean_file import read_mean
from trainer.data.paths import find_data
from trainer.data.transform import Transformer
from trainer.errors import DataError, UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Position:
    """A place in the endless sequence of a layer's items.

    Attributes:
        item: Items before it since the run began.
        key: Key of the database entry there, in hexadecimal, to find it without counting; "" if
            it has to be found by counting.
        begin: First entry of the part of the database that is read.
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


@final
class DataSource:
    """Reads, decodes and transforms what one `Data` layer asks for, batch after batch.

    Each of several workers reads its own part of the database in the TRAIN phase, and all of it in
    the TEST phase. As in Caffe `rand_skip` is ignored, and so are the deprecated `scale`,
    `mean_file`, `crop_size` and `mirror` of `data_param`.

    Args:
        spec: The layer.
        seed: Of random crops and mirroring.
        stream: Number of the layer in its net.
        rank: Which worker.
        world_size: Number of workers.
        data_dir: Where else to look for the database and the mean file.

    Attributes:
        where: Place, name and type of the layer, for messages.
        position: Of the next batch.
        shapes: Shape of each top, by its name; the first image gives it.

    Raises:
        UsageError: The layer's settings cannot be used.
        DataError: The database or the mean file cannot be used.

    Source: BVLC/caffe src/caffe/layers/data_layer.cpp, DataLayerSetUp and load_batch.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        seed: int,
        stream: int,
        rank: int,
        world_size: int,
        data_dir: Path | None,
    ) -> None:
        place = f"{spec.where}: " if spec.where else ""
        self.where = f'{place}layer "{spec.name}" ({spec.param.type})'
        self._spec = spec
        if spec.phase != caffe_pb2.TRAIN:
            rank, world_size = 0, 1
        with self._named_errors():
            _check_settings(spec)
            transform = spec.param.transform_param
            mean = None
            if transform.mean_file:
                mean = read_mean(find_data(transform.mean_file, data_dir))
            # Workers of one run share the seed and must not share the random numbers.
            stream += rank << 32
            self._transform = Transformer(transform, spec.phase, mean, seed=seed, stream=stream)
            path = find_data(spec.param.data_param.source, data_dir)
            self._reader = LmdbReader(path, rank, world_size)
        try:
            self.shapes = self._shapes()
        except DataError:
            self._reader.close()
            raise
        self._item = 0

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        batch_size = self._spec.param.data_param.batch_size
        transform = self._spec.param.transform_param
        with self._named_errors():
            datum, image = self._decode()
            if (transform.force_color or transform.force_gray) and not datum.encoded:
                logger.error("force_color and force_gray only for encoded datum")
            shape = (batch_size, *self._transform.output_shape(image))
        logger.info("output data size: %d,%d,%d,%d", *shape)
        return dict(zip(self._spec.tops, (shape, (batch_size,)), strict=False))

    @property
    def position(self) -> Position:
        """Where the next batch begins."""
        reader = self._reader
        return Position(self._item, reader.key.hex(), reader.begin, reader.end)

    def read(self) -> SourceBatch:
        """Return the next batch; after the last entry the first one follows.

        Raises:
            DataError: The database is damaged, or an image does not fit the settings.
        """
        images, labels = [], []
        with self._named_errors():
            for _ in range(self._spec.param.data_param.batch_size):
                datum, image = self._decode()
                images.append(image)
                labels.append(datum.label)
                self._reader.advance()
            data = torch.from_numpy(self._transform(images, self._item))
        self._item += len(images)
        tensors = (data, torch.tensor(labels, dtype=torch.float32))
        blobs = dict(zip(self._spec.tops, tensors, strict=False))
        return SourceBatch(blobs, self.position)

    def after(self, position: Position, batches: int) -> Position:
        """Return the place `batches` batches after `position`."""
        items = batches * self._spec.param.data_param.batch_size
        return replace(position, item=position.item + items, key="")

    def seek(self, position: Position) -> None:
        """Go to a `position` of this or of an equal source.

        Raises:
            DataError: It is of another part of the database, or the database has changed.
        """
        here = self.position
        with self._named_errors():
            if (position.begin, position.end) != (here.begin, here.end):
                raise DataError(
                    f"the saved position belongs to entries {position.begin} to {position.end};"
                    f" this run reads entries {here.begin} to {here.end} of {self._reader.path}:"
                    " use the same database and number of workers, or start without the position"
                )
            entry = here.begin + position.item % (here.end - here.begin)
            self._reader.seek(entry, bytes.fromhex(position.key) or None)
        self._item = position.item

    def close(self) -> None:
        """Let the database go. Idempotent."""
        self._reader.close()

    def _decode(self) -> tuple[caffe_pb2.Datum, Image]:
        transform = self._spec.param.transform_param
        try:
            datum = parse_datum(self._reader.value)
            return datum, decode_datum(
                datum, force_color=transform.force_color, force_gray=transform.force_gray
            )
        except DataError as error:
            where = f"{self._reader.path}, key {self._reader.key!r}"
            raise DataError(f"{where}: {error}; convert the images again") from error

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except UsageError as error:
            raise UsageError(f"{self.where}: {error}") from error
        except DataError as error:
            raise DataError(f"{self.where}: {error}") from error


def _check_settings(spec: DataSpec) -> None:
    data = spec.param.data_param
    if spec.param.type != "Data":
        raise UsageError("expected a Data layer; this type cannot be read yet")
    if not 1 <= len(spec.tops) <= 2:
        raise UsageError(f"expected 1 or 2 tops (data, label); received {len(spec.tops)}")
    for field in ("batch_size", "prefetch"):
        if not getattr(data, field):
            raise UsageError(f"data_param.{field} must be > 0; received 0")
    if not data.source:
        raise UsageError("data_param.source must name a database; received none")
    if data.backend == caffe_pb2.DataParameter.LEVELDB:
        raise DataError(
            "a LevelDB (which data_param.backend means unless it says LMDB) cannot be read:"
            " convert the images again with -backend lmdb, or with `torrefy data`, and write"
            " `backend: LMDB` in data_param"
        )
