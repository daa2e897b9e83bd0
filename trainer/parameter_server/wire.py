"""How calls look on the wire: JSON values, and buffers of numbers without a copy. Never pickle.

A call that carries tensors is one Flight DoExchange. The request is a JSON command in the
descriptor and the tensors, one after the other, as chunks of a single column; the answer is a JSON
message and again chunks. Calls without tensors are Flight actions with JSON bodies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from trainer.compression import narrowed
from trainer.errors import TrainerError

# Of this protocol; whoever changes a call counts it up.
VERSION = 2

# Tensors travel as one of these; Arrow has no bfloat16, so that goes as its bits.
_ARROW_TYPES = {
    torch.float32: pa.float32(),
    torch.float64: pa.float64(),
    torch.float16: pa.float16(),
    torch.bfloat16: pa.uint16(),
}
_NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in _ARROW_TYPES}
SCHEMAS = {
    dtype: pa.schema([pa.field("values", _ARROW_TYPES[dtype], nullable=False)], {"dtype": name})
    for name, dtype in _NAMES.items()
}

# Bytes of JSON in a call, or in its answer.
_LIMIT = 1 << 20
# Values in a message, 1 MiB of float32: what is under way takes little memory, and larger ones are
# no faster.
_CHUNK = 1 << 18


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a message as JSON bytes.

    Raises:
        TrainerError: It is too long for a call.
    """
    raw = json.dumps(message).encode()
    _check_length(raw)
    return raw


def decode(raw: bytes) -> dict[str, Any]:
    """Return the message in JSON bytes.

    Raises:
        TrainerError: They hold none.
    """
    _check_length(raw)
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise TrainerError(f"a message that is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise TrainerError("a message that is not a JSON object")
    return message


def _check_length(raw: bytes) -> None:
    if len(raw) > _LIMIT:
        raise TrainerError(f"expected a message of at most {_LIMIT} bytes; it has {len(raw)}")


def name_of(dtype: torch.dtype) -> str:
    """Return what a command calls a type.

    Raises:
        TrainerError: Tensors of it do not travel.
    """
    if dtype not in SCHEMAS:
        raise TrainerError(f"expected tensors of {', '.join(_NAMES)}; received {dtype}")
    return str(dtype).removeprefix("torch.")


def dtype_of(command: Mapping[str, Any]) -> torch.dtype:
    """Return in which type the caller of a command sends its tensors, and wants those it gets.

    Raises:
        TrainerError: There is no such type.
    """
    name = command["dtype"]
    if not isinstance(name, str) or name not in _NAMES:
        raise TrainerError(f"expected a dtype of {', '.join(_NAMES)}; received {name!r}")
    return _NAMES[name]


def send(writer: Any, tensors: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> None:
    """Write flat tensors to a Flight stream that was begun with the schema of `dtype`.

    Raises:
        TrainerError: A value is too large for `dtype`.
    """
    for tensor in tensors:
        for part in torch.split(tensor.detach(), _CHUNK):
            values = narrowed(part, dtype).cpu().contiguous()
            bits = values.view(torch.uint16) if dtype == torch.bfloat16 else values
            buffer = pa.py_buffer(bits.numpy())
            column = pa.Array.from_buffers(_ARROW_TYPES[dtype], len(part), [None, buffer])
            writer.write_batch(pa.record_batch([column], schema=SCHEMAS[dtype]))


def receive_message(reader: Any) -> dict[str, Any]:
    """Read the JSON message that begins an answer."""
    metadata = reader.read_chunk().app_metadata
    return decode(metadata.to_pybytes() if metadata is not None else b"")


def receive(reader: Any, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Read a flat tensor of `size` values, to the end of the stream.

    Args:
        reader: Of Flight.
        size: Number of values.
        dtype: In which they come.

    Returns:
        Shape (size,), as float32, or as float64 where that came.

    Raises:
        TrainerError: More or fewer values came, or something else.
    """
    return joined(receive_parts(reader, size, dtype), size, dtype)


def joined(parts: Iterator[Tensor], size: int, dtype: torch.dtype) -> Tensor:
    """Return what `receive_parts` yields as one tensor; see `receive`."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    flat, done = torch.empty(size, dtype=wide), 0
    for part in parts:
        flat[done : done + len(part)].copy_(part)
        done += len(part)
    return flat


def receive_parts(reader: Any, size: int, dtype: torch.dtype = torch.float32) -> Iterator[Tensor]:
    """Read `size` values in flat parts, to the end of the stream; one part at a time is in memory.

    Args:
        reader: Of Flight.
        size: Number of values.
        dtype: In which they come.

    Yields:
        What came, to be read and not to be written to: it is Arrow's memory.

    Raises:
        TrainerError: More or fewer values came, or something else.
    """
    schema = reader.schema
    if not schema.equals(SCHEMAS[dtype]):
        raise TrainerError(
            f"expected a stream of {name_of(dtype)} values; received {str(schema)[:200]}"
        )
    done = 0
    for chunk in reader:
        if chunk.data is None:
            continue
        _check(chunk.data)
        done += chunk.data.num_rows
        if done > size:
            raise TrainerError(f"expected {size} values; received more")
        values = from_dlpack(chunk.data.column(0))
        yield values.view(torch.bfloat16) if dtype == torch.bfloat16 else values
    if done != size:
        raise TrainerError(f"expected {size} values; received {done}")


def _check(batch: Any) -> None:
    try:
        batch.validate(full=True)
    except pa.ArrowException as error:
        raise TrainerError(f"a damaged batch: {error}") from error
    if batch.column(0).null_count:
        raise TrainerError("expected numbers; received nulls")
