"""`BlobProto` in and out, at the speed of memory: payloads are copied as bytes, never as lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, count, shape_text

Chunk = bytes | memoryview

_DATA_FIELD, _DIFF_FIELD, _SHAPE_FIELD = 5, 6, 7


def is_legacy(blob: caffe_pb2.BlobProto) -> bool:
    """Return whether any field of the old 4-D shape is present."""
    return any(blob.HasField(name) for name in ("num", "channels", "height", "width"))


def blob_shape(blob: caffe_pb2.BlobProto) -> Shape:
    """Return the shape: the legacy 4-D one if any of its fields is present, else `shape`."""
    if is_legacy(blob):
        return (blob.num, blob.channels, blob.height, blob.width)
    return tuple(blob.shape.dim)


def blob_to_tensor(blob: caffe_pb2.BlobProto, *, diff: bool = False) -> Tensor:
    """Return the payload (or the diff) as a tensor, float32, or float64 if stored in double.

    Raises:
        LayerError: The number of values is not the product of the shape.
    """
    values = _packed(blob, "double_diff" if diff else "double_data", "<f8")
    if not values.size:
        values = _packed(blob, "diff" if diff else "data", "<f4")
    shape = blob_shape(blob)
    if values.size != count(shape):
        raise LayerError(
            f"a blob of shape {shape_text(shape)} holds {values.size} values: the file is damaged"
        )
    return torch.from_numpy(values.copy()).view(shape)


def _packed(blob: caffe_pb2.BlobProto, field: str, dtype: str) -> NDArray[np.generic]:
    """Return a packed repeated field as an array: its serialised form is the array's bytes."""
    if not getattr(blob, field):
        return np.empty(0, dtype)
    alone = caffe_pb2.BlobProto()
    getattr(alone, field).MergeFrom(getattr(blob, field))
    raw = alone.SerializeToString()
    size = len(getattr(blob, field)) * np.dtype(dtype).itemsize
    return np.frombuffer(raw, dtype=dtype, offset=len(raw) - size)


def blob_chunks(tensor: Tensor, diff: Tensor | None = None) -> list[Chunk]:
    """Return a serialised BlobProto of a tensor, and of its diff, without copying the values.

    A scalar has no `shape` at all, as in Caffe's files (caffe/src/caffe/blob.cpp, Blob::ToProto).
    """
    shape = caffe_pb2.BlobShape(dim=tensor.shape).SerializeToString()
    chunks: list[Chunk] = []
    for number, values in ((_DATA_FIELD, tensor), (_DIFF_FIELD, diff)):
        if values is not None:
            array = values.detach().to("cpu", torch.float32).contiguous().numpy()
            payload = array.astype("<f4", copy=False).reshape(-1).view(np.uint8)
            chunks += field(number, [payload.data])
    return [*chunks, *field(_SHAPE_FIELD, [shape])] if shape else chunks


def field(number: int, chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return a serialised length-delimited field made of `chunks`."""
    size = sum(len(chunk) for chunk in chunks)
    return [_varint(number << 3 | 2) + _varint(size), *chunks]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
