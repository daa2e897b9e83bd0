"""What a data layer asks for. Nothing is opened here: `trainer.data` turns a spec into batches."""

from __future__ import annotations

from dataclasses import dataclass

from prototxt_parser.proto import caffe_pb2


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
