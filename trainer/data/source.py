"""The batches of one `Data` layer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from prototxt_parser.data_spec import DataSpec
from prototxt_parser.proto import caffe_pb2
from trainer.data.database import open_database
from trainer.data.datum import Image, decode_datum, parse_datum
from trainer.data.source_base import Position, Share, Source
from trainer.data.transform import Transformer
from trainer.errors import DataError

logger = logging.getLogger(__name__)


@final
class DataSource(Source):
    """Reads, decodes and transforms the entries of a database in key order.

    Each of several workers reads its own part of the database in the TRAIN phase, and all of it in
    the TEST phase. As in Caffe `rand_skip` is ignored, and so are the deprecated `scale`,
    `mean_file`, `crop_size` and `mirror` of `data_param`.

    Source: BVLC/caffe src/caffe/layers/data_layer.cpp, DataLayerSetUp and load_batch.
    """

    def __init__(self, spec: DataSpec, share: Share) -> None:
        super().__init__(spec, share)
        share = self._share
        with self._named_errors():
            self._transform = Transformer(
                spec.param.transform_param,
                spec.phase,
                self._read_mean(),
                seed=share.seed,
                stream=share.stream,
            )
            backend = caffe_pb2.DataParameter.DB.Name(spec.param.data_param.backend)
            self._reader = open_database(self._path, backend, share.rank, share.world_size)
        try:
            self._begin, self._end = self._reader.begin, self._reader.end
            self.shapes = self._shapes()
        except DataError:
            self._reader.close()
            raise

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        batch_size = self._spec.batch_size
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
        return Position(self._item, self._reader.key.hex(), self._begin, self._end)

    def close(self) -> None:
        """Let the database go. Idempotent."""
        self._reader.close()

    def _tops(self) -> Sequence[Tensor]:
        images, labels = [], []
        for _ in range(self._spec.batch_size):
            datum, image = self._decode()
            images.append(image)
            labels.append(datum.label)
            self._reader.advance()
        data = torch.from_numpy(self._transform(images, self._item))
        return data, torch.tensor(labels, dtype=torch.float32)

    def _move(self, position: Position) -> None:
        entry = self._begin + position.item % (self._end - self._begin)
        self._reader.seek(entry, bytes.fromhex(position.key) or None)

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
