"""How calls look on the wire: JSON values, and float32 buffers without a copy. Never pickle.

A call that carries tensors is one Flight DoExchange. The request is a JSON command in the
descriptor and the tensors, one after the other, as chunks of a single column; the answer is a JSON
message and again chunks. Calls without tensors are Flight actions with JSON bodies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from trainer.errors import TrainerError

SCHEMA = pa.schema([pa.field("values", pa.float32(), nullable=False)])

_CHUNK = 1 << 22  # values, 16 MiB: far below gRPC's limit of 2 GiB per message


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a message as JSON bytes."""
    return json.dumps(message).encode()


def decode(raw: bytes) -> dict[str, Any]:
    """Return the message in JSON bytes.

    Raises:
        TrainerError: They hold none.
    """
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise TrainerError(f"a message that is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise TrainerError("a message that is not a JSON object")
    return message


def send(writer: Any, tensors: Sequence[Tensor]) -> None:
    """Write flat tensors to a begun Flight stream."""
    for tensor in tensors:
        values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
        for start in range(0, len(values), _CHUNK):
            part = values[start : start + _CHUNK]
            column = pa.Array.from_buffers(pa.float32(), len(part), [None, pa.py_buffer(part)])
            writer.write_batch(pa.record_batch([column], schema=SCHEMA))


def receive_message(reader: Any) -> dict[str, Any]:
    """Read the JSON message that begins an answer."""
    metadata = reader.read_chunk().app_metadata
    return decode(metadata.to_pybytes() if metadata is not None else b"")


def receive(reader: Any, size: int) -> Tensor:
    """Read a flat tensor of `size` values, to the end of the stream.

    Raises:
        TrainerError: More or fewer values came, or something else.
    """
    if reader.schema != SCHEMA:
        raise TrainerError(f"expected a stream of float32 values; received {reader.schema}")
    flat, done = torch.empty(size), 0
    for chunk in reader:
        if chunk.data is None:
            continue
        _check(chunk.data)
        if done + chunk.data.num_rows > size:
            raise TrainerError(f"expected {size} values; received more")
        values = chunk.data.column(0).to_numpy()
        flat.numpy()[done : done + len(values)] = values
        done += len(values)
    if done != size:
        raise TrainerError(f"expected {size} values; received {done}")
    return flat


def _check(batch: Any) -> None:
    try:
        batch.validate(full=True)
    except pa.ArrowException as error:
        raise TrainerError(f"a damaged batch: {error}") from error
    if batch.column(0).null_count:
        raise TrainerError("expected float32 values; received nulls")
