"""Opening the source of a data layer, by its type."""

from __future__ import annotations

from prototxt_parser.data_spec import DataSpec
from trainer.data.hdf5_source import Hdf5Source
from trainer.data.image_source import ImageSource
from trainer.data.source import DataSource
from trainer.data.source_base import Share, Source
from trainer.data.window_source import WindowSource
from trainer.errors import UsageError

_SOURCES: dict[str, type[Source]] = {
    "Data": DataSource,
    "HDF5Data": Hdf5Source,
    "ImageData": ImageSource,
    "WindowData": WindowSource,
}


def open_source(spec: DataSpec, share: Share) -> Source:
    """Open what a data layer asks for.

    Raises:
        UsageError: The layer is of a type that reads no files, or its settings cannot be used.
        DataError: A file that it names cannot be used.
    """
    source = _SOURCES.get(spec.param.type)
    if source is not None:
        return source(spec, share)
    place = f"{spec.where}: " if spec.where else ""
    layer = f'{place}layer "{spec.name}" ({spec.param.type})'
    if spec.param.type == "MemoryData":
        raise UsageError(
            f"{layer} needs to be initialized by calling Reset: its arrays come from a program, by"
            " pycaffe's Net.set_input_arrays; to train or test on files, put a layer of"
            f" {', '.join(_SOURCES)} in its place"
        )
    raise UsageError(
        f"{layer}: expected a data layer of one of the types {', '.join(_SOURCES)};"
        " batches of this type have to be fed by a program"
    )
