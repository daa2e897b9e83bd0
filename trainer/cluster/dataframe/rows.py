"""Arrow columns to rows of arrays, without a Python object per value."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from prototxt_parser.shapes import Shape, count
from trainer.cluster.dataframe.inputs import Fed, Input, make_input
from trainer.data.datum import Image
from trainer.errors import DataError

# How image files begin: PNG, JPEG, BMP, WebP, TIFF, PPM.
_SIGNATURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"P5", b"P6")


def is_image_file(value: bytes, raw_size: int | None) -> bool:
    """Return whether bytes are an image file, not `raw_size` raw pixels."""
    return value.startswith(_SIGNATURES) and len(value) != raw_size


def first_row(frame: Any) -> dict[str, Any]:
    """Return the first row of a `pyspark.sql.DataFrame`: an array of one value by column.

    Raises:
        DataError: There is none.
    """
    table = frame.limit(1).toArrow()
    if not table.num_rows:
        raise DataError("the DataFrame has no rows to train on")
    return {name: table.column(name).combine_chunks() for name in table.column_names}


def row_shape(fed: Fed, given: Shape | None, value: Any, data_dir: Path | None) -> Shape:
    """Return the shape of the rows that fill a blob.

    Args:
        fed: The blob.
        given: What the user says, which comes first; then what the net says, then what is there.
        value: One row.
        data_dir: Where to look for mean files.

    Raises:
        DataError: Nothing says it.
    """
    shape = given or fed.row_shape(data_dir)
    if shape is not None:
        return shape
    row = value[0].as_py()
    if row is None:
        raise DataError("the first row is null; drop such rows, as by df.dropna()")
    if isinstance(row, bytes):
        if is_image_file(row, None):
            return make_input(fed, (), data_dir).open_image(row).shape
        raise DataError(
            f"{len(row)} raw bytes say no shape: give channels, height and width by inputShape"
        )
    shape = (len(row),) if isinstance(row, list) else ()
    return (count(shape), 1, 1) if fed.is_image else shape


def rows_of(array: Any, spec: Input, first: int = 0) -> Any:
    """Return the rows of an Arrow array, each of `spec.shape`.

    Arrays of numbers and raw bytes are views of the Arrow memory; image files are decoded when they
    are taken.

    Args:
        array: A `pyarrow.Array` of binary values, lists of numbers, or numbers; not empty.
        spec: What the rows are for.
        first: Number of the first row, for messages.

    Raises:
        DataError: A row is null, of another size, or no allowed label.
    """
    if array.null_count:
        row = first + int(np.flatnonzero(np.asarray(array.is_null()))[0])
        raise DataError(
            f"{_row(spec, row)}: expected a value; received null: drop such rows, as by df.dropna()"
        )
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        if is_image_file(array[0].as_py(), spec.row_size):
            return _ImageFiles(array, spec, first)
        rows: Image = _raw(array, spec, first)
    elif pa.types.is_nested(array.type):
        rows = _lists(array, spec, first)
    else:
        rows = _numbers(array, spec, first)
    if spec.labels is not None:
        _check_labels(rows, spec, first)
    return rows


@final
class Column:
    """The rows of a partition, in the pieces that came."""

    def __init__(self, spec: Input) -> None:
        self._spec = spec
        self._pieces: list[Any] = []
        self._starts: list[int] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, array: Any) -> None:
        """Take the next rows.

        Raises:
            DataError: They are not as the blob needs them.
        """
        self._pieces.append(rows_of(array, self._spec, self._size))
        self._starts.append(self._size)
        self._size += len(array)

    def __getitem__(self, row: int) -> Image:
        piece = bisect_right(self._starts, row) - 1
        found: Image = self._pieces[piece][row - self._starts[piece]]
        return found


@final
class _ImageFiles:
    """Images in the compressed form in which they came."""

    def __init__(self, array: Any, spec: Input, first: int) -> None:
        self._array, self._spec, self._first = array, spec, first

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: int) -> Image:
        try:
            return self._spec.decode(self._array[index].as_py())
        except DataError as error:
            raise DataError(f"{_row(self._spec, self._first + index)}: {error}") from error


def _raw(array: Any, spec: Input, first: int) -> Image:
    kind = np.int64 if pa.types.is_large_binary(array.type) else np.int32
    _, ends, data = array.buffers()
    offsets = np.frombuffer(ends, kind)[array.offset : array.offset + len(array) + 1]
    lengths = np.diff(offsets)
    _check_lengths(lengths, spec, first, "bytes, or a PNG or JPEG file")
    values = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
    return values.reshape(len(array), *spec.shape)


def _lists(array: Any, spec: Input, first: int) -> Image:
    lengths = np.asarray(pc.list_value_length(array))
    _check_lengths(lengths, spec, first, "values")
    values = array.flatten()
    if values.null_count:
        row = int(np.flatnonzero(np.asarray(values.is_null()))[0]) // spec.row_size
        raise DataError(f"{_row(spec, first + row)}: one of its values is null")
    return _floats(values).reshape(len(array), *spec.shape)


def _numbers(array: Any, spec: Input, first: int) -> Image:
    _check_lengths(np.ones(len(array)), spec, first, "values")
    return _floats(array).reshape(len(array), *spec.shape)


def _floats(values: Any) -> NDArray[np.float32]:
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float32)


def _check_lengths(lengths: NDArray[Any], spec: Input, first: int, unit: str) -> None:
    wrong = np.flatnonzero(lengths != spec.row_size)
    if wrong.size:
        product = " x ".join(map(str, spec.shape)) or "one number"
        raise DataError(
            f"{_row(spec, first + int(wrong[0]))}: expected {spec.row_size} {unit} ({product}); "
            f"received {int(lengths[wrong[0]])}: correct the rows, or say their shape by inputShape"
        )


def _check_labels(rows: Image, spec: Input, first: int) -> None:
    labels = spec.labels
    if labels is None:
        return
    values = rows.reshape(len(rows), -1)
    is_allowed = (values >= 0) & (values < labels.classes) & (values == np.floor(values))
    if labels.ignored is not None:
        is_allowed |= values == labels.ignored
    wrong = np.flatnonzero(~is_allowed.all(axis=1))
    if wrong.size:
        value = values[wrong[0]][~is_allowed[wrong[0]]][0]
        raise DataError(
            f"{_row(spec, first + int(wrong[0]))}: expected a label from 0 to "
            f"{labels.classes - 1}, a whole number; received {value:g}"
        )


def _row(spec: Input, row: int) -> str:
    return f'blob "{spec.blob}", row {row} of the partition'
