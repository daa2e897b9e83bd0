"""What a data layer asks for. Nothing is opened here: `trainer.data` turns a spec into batches."""

from __future__ import annotations

from dataclasses import dataclass

from prototxt_parser.proto import caffe_pb2

_SETTINGS_FIELDS = {
    "Data": "data_param",
    "HDF5Data": "hdf5_data_param",
    "ImageData": "image_data_param",
    "MemoryData": "memory_data_param",
    "WindowData": "window_data_param",
}


@dataclass(frozen=True)
class DataSpec:
    """One data layer of a net, as its definition states it.

    Attributes:
        param: The whole layer, after filtering and upgrading; `param.type` is Caffe's type string.
        phase: Phase that the layer behaves by: its own if it sets one, else the net's.
        where: `file:line:column` of the layer, or "" when the net was made in memory.
    """

    param: caffe_pb2.LayerParameter
    phase: int
    where: str = ""

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.param.name

    @property
    def tops(self) -> tuple[str, ...]:
        """Blobs that the layer fills, in order (data, then label if there is a second one)."""
        return tuple(self.param.top)

    @property
    def settings_field(self) -> str:
        """Field of `param` that holds the settings of this type; "" for a type without one."""
        return _SETTINGS_FIELDS.get(self.param.type, "")

    @property
    def batch_size(self) -> int:
        """Items in a batch; 0 for a type that does not say."""
        settings = getattr(self.param, self.settings_field, None)
        return int(getattr(settings, "batch_size", 0))
