"""The batches of one `HDF5Data` layer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prototxt_parser.data_spec import DataSpec
from trainer.data.draws import Draws
from trainer.data.hdf5_rows import Hdf5File, Rows, open_listed
from trainer.data.source_base import Share, Source
from trainer.errors import UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Piece:
    """The rows of one file that this worker reads."""

    file: Hdf5File
    begin: int
    end: int

    @property
    def count(self) -> int:
        return self.end - self.begin


@final
class Hdf5Source(Source):
    """Reads rows of datasets file after file; a batch goes on into the next file.

    Of the files only the rows of one are in memory. With `shuffle` every epoch has its own order of
    files, and of rows in each. Each of several workers reads its own part of all rows in the TRAIN
    phase, and all of them in the TEST phase.

    Differs from Caffe: orders follow from the seed; workers read a part in one piece, and not every
    so manieth row; batches are read ahead; files of other shapes than the first one's are refused,
    where Caffe mixes up their rows.

    Source: BVLC/caffe src/caffe/layers/hdf5_data_layer.cpp, LayerSetUp, Next and Forward_cpu.
    """

    def __init__(self, spec: DataSpec, share: Share) -> None:
        super().__init__(spec, share)
        self._shuffles = spec.param.hdf5_data_param.shuffle
        self._draws = Draws(self._share.seed, self._share.stream)
        with self._named_errors():
            if spec.param.HasField("transform_param"):
                raise UsageError(
                    "HDF5Data does not transform data: take transform_param away, and store the"
                    " values as the net needs them"
                )
            files = open_listed(self._path, spec.tops, self._share.data_dir)
            logger.info("Number of HDF5 files: %d", len(files))
            count = sum(file.count for file in files)
            self._begin, self._end = self._share.part_of(self._path, count)
        self._pieces = _pieces(files, self._begin, self._end)
        self._order = lru_cache(maxsize=2)(self._new_order)  # of the files, and of the present rows
        self._present: tuple[_Piece, Rows] | None = None
        self.shapes = {
            top: (spec.batch_size, *shape)
            for top, shape in zip(spec.tops, files[0].row_shapes, strict=True)
        }

    def _tops(self) -> Sequence[Tensor]:
        parts: list[Rows] = []
        wanted = self._spec.batch_size
        while wanted:
            rows = self._rows(self._item + self._spec.batch_size - wanted, wanted)
            parts.append(rows)
            wanted -= len(rows[0])
        return [torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True)]

    def _rows(self, item: int, wanted: int) -> Rows:
        """Return rows from number `item` on, at most those that are left in its file."""
        epoch, row = divmod(item, self._end - self._begin)
        for number in self._order(len(self._pieces), epoch, 0):
            piece = self._pieces[number]
            if row < piece.count:
                chosen = self._order(piece.count, epoch, 1 + int(number))[row : row + wanted]
                return [array[chosen] for array in self._load(piece)]
            row -= piece.count
        raise IndexError(f"no row {row}")  # not reached: the pieces cover the epoch

    def _new_order(self, count: int, epoch: int, part: int) -> NDArray[np.intp]:
        return self._draws.order(count, epoch, part) if self._shuffles else np.arange(count)

    def _load(self, piece: _Piece) -> Rows:
        if self._present is None or self._present[0] is not piece:
            self._present = None  # let the file before go first
            self._present = piece, piece.file.read(piece.begin, piece.end)
        return self._present[1]


def _pieces(files: Sequence[Hdf5File], begin: int, end: int) -> list[_Piece]:
    pieces, before = [], 0
    for file in files:
        first, last = max(begin - before, 0), min(end - before, file.count)
        if first < last:
            pieces.append(_Piece(file, first, last))
        before += file.count
    return pieces
