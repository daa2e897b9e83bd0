"""Blobs written to a file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import final

import h5py
from torch import Tensor

from prototxt_parser.errors import LayerError, WriteError
from prototxt_parser.layers.base import Layer, LayerContext, exactly
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, shape_text

logger = logging.getLogger(__name__)

_DATASETS = ("data", "label")


@final
@register_layer("HDF5Output")
class HDF5Output(Layer):
    """Writes its bottoms to the datasets `data` and `label` of the HDF5 file `file_name`.

    Shape: two blobs of up to 4 axes and as many rows each -> no top; in the file they have 4 axes,
      those that they lack of size 1.
    Differs from Caffe, whose second forward pass ends the program: every forward pass of a net adds
    its rows, and leaves a complete file. The first one replaces a file of that name; Caffe empties
    it when the net is built, which here changes nothing.
    Differs from PyTorch: there is none like it.
    Source: caffe/src/caffe/layers/hdf5_output_layer.cpp, HDF5OutputLayer.
    """

    param_fields = ("hdf5_output_param",)
    bottom_count = exactly(2)
    top_count = exactly(0)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Read the name of the file."""
        super().__init__(param, bottoms, context)
        if not param.hdf5_output_param.file_name:
            raise LayerError("hdf5_output_param.file_name must be specified")
        self.path = Path(param.hdf5_output_param.file_name)
        self._is_started = False

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Check the bottoms; there is no top."""
        data, label = (_four_axes(bottom) for bottom in bottoms)
        if data[0] != label[0]:
            raise LayerError(
                "data blob and label blob must have the same batch size; received "
                f"{shape_text(bottoms[0])} and {shape_text(bottoms[1])}"
            )
        return []

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Add the rows of the bottoms to the file."""
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        try:
            with h5py.File(self.path, "a" if self._is_started else "w") as file:
                for name, bottom in zip(_DATASETS, bottoms, strict=True):
                    _append(file, name, bottom)
        except OSError as error:
            raise WriteError(f"{self.path}: cannot write: {error}") from error
        self._is_started = True
        logger.info("Successfully saved %d rows", len(bottoms[0]))
        return ()


def _four_axes(shape: Shape) -> Shape:
    if len(shape) > 4:
        raise LayerError(
            f"a bottom must have at most 4 axes, as HDF5Output writes; received {shape_text(shape)}"
        )
    return (*shape, *[1] * (4 - len(shape)))


def _append(file: h5py.File, name: str, blob: Tensor) -> None:
    rows = blob.detach().cpu().numpy().reshape(_four_axes(tuple(blob.shape)))
    if name not in file:
        file.create_dataset(name, data=rows, maxshape=(None, *rows.shape[1:]))
        return
    dataset = file[name]
    if dataset.shape[1:] != rows.shape[1:]:
        raise LayerError(
            f"{name} must keep the shape of its rows, {dataset.shape[1:]}; received "
            f"{rows.shape[1:]}"
        )
    dataset.resize(len(dataset) + len(rows), axis=0)
    dataset[-len(rows) :] = rows
