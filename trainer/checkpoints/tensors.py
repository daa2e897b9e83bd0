"""Tensors in files: an Arrow IPC stream with one column of float32 values.

Any of Arrow's libraries reads it: `pyarrow.ipc.open_stream(file).read_all()["values"]`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.errors import DataError

_SCHEMA = pa.schema([pa.field("values", pa.float32(), nullable=False)])
_CHUNK = 1 << 22  # values, 16 MiB


@final
class TensorWriter:
    """Writes values chunk by chunk, without a copy where they are float32 in the CPU's memory.

    It is a context manager: the file is complete when the block ends without an error. It does not
    close the sink.

    Args:
        sink: Has a method `write` for bytes, such as what `Pending.writing` gives.
    """

    def __init__(self, sink: Any) -> None:
        self._writer = pa.ipc.new_stream(sink, _SCHEMA)

    def write(self, values: Tensor) -> None:
        """Append the values of a tensor of any shape, device and floating-point type."""
        flat = values.detach().reshape(-1)
        for start in range(0, len(flat), _CHUNK):
            self.write_array(flat[start : start + _CHUNK].to("cpu", torch.float32).numpy())

    def write_array(self, values: NDArray[np.float32]) -> None:
        """Append values, shape (n,), which may lie in memory that is not ours to change."""
        for start in range(0, len(values), _CHUNK):
            part = np.ascontiguousarray(values[start : start + _CHUNK], dtype=np.float32)
            column = pa.Array.from_buffers(pa.float32(), len(part), [None, pa.py_buffer(part)])
            self._writer.write_batch(pa.record_batch([column], schema=_SCHEMA))

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self._writer.close()


def write_tensors(sink: Any, chunks: Iterable[Tensor]) -> None:
    """Write tensors one after the other; see `TensorWriter`."""
    with TensorWriter(sink) as writer:
        for chunk in chunks:
            writer.write(chunk)


def read_tensors(stream: Any, count: int, size: int) -> list[Tensor]:
    """Return what `write_tensors` has written.

    Args:
        stream: A file to read, such as what `Checkpoint.reading` gives.
        count: Tensors.
        size: Values of each.

    Returns:
        `count` tensors of shape (size,), views of one.

    Raises:
        DataError: The file holds something else.
    """
    flat, done = torch.empty(count * size), 0
    try:
        with pa.ipc.open_stream(stream) as reader:
            if reader.schema != _SCHEMA:
                raise DataError(f"expected a column of float32 values; received {reader.schema}")
            for batch in reader:
                values = _values(batch)
                end = done + len(values)
                if end <= len(flat):
                    flat.numpy()[done:end] = values
                done = end
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"expected an Arrow IPC stream; {error}") from error
    if done != len(flat):
        raise DataError(f"expected {count} times {size} values; received {done}")
    return list(flat.view(count, size).unbind())


def _values(batch: Any) -> NDArray[np.float32]:
    batch.validate(full=True)
    if batch.column(0).null_count:
        raise DataError("expected float32 values; received nulls")
    values: NDArray[np.float32] = batch.column(0).to_numpy()
    return values
