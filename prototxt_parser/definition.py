"""A net's definition, with the places where its layers are written."""

from __future__ import annotations

from dataclasses import dataclass

from prototxt_parser.proto import caffe_pb2


@dataclass(frozen=True)
class NetDefinition:
    """A net as its file states it, upgraded to the current form but not filtered by phase.

    Attributes:
        param: The net.
        path: File that it was read from; "" when made in memory.
        places: `file:line:column` of each `param.layer`; "" for one that no file holds.
    """

    param: caffe_pb2.NetParameter
    path: str = ""
    places: tuple[str, ...] = ()

    def place(self, index: int) -> str:
        """Return `file:line:column` of a layer, or "" when it is unknown."""
        return self.places[index] if index < len(self.places) else ""
