"""Nets with their weights on the way to executors, and what is done with them there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import torch
from pyspark import Broadcast, TaskContext
from torch import Tensor

from prototxt_parser.build import build_for_state
from prototxt_parser.definition import NetDefinition
from prototxt_parser.net import Net
from prototxt_parser.proto.caffe_pb2 import NetState
from prototxt_parser.weights import load_weights
from trainer.cluster.dataframe.heads import BINARY, CLASSES, Head
from trainer.cluster.dataframe.inputs import BlobMaker, Input
from trainer.cluster.dataframe.rows import rows_of
from trainer.errors import DataError
from trainer.extensions import Extensions


@dataclass(frozen=True)
class FrozenNet:
    """A net with its weights, as it travels.

    Attributes:
        definition: The net, unfiltered.
        state: What it is built for.
        inputs: How its blobs are made.
        weights: A caffemodel.
        extensions: The user's modules.
    """

    definition: NetDefinition
    state: NetState
    inputs: tuple[Input, ...]
    weights: bytes
    extensions: Extensions

    def build(self) -> Net:
        """Build the net and load the weights."""
        self.extensions.install()
        shapes = {each.blob: each.top_shape(1) for each in self.inputs}
        net = build_for_state(self.definition, self.state, input_shapes=shapes)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "weights.caffemodel")
            path.write_bytes(self.weights)
            load_weights(net, path)
        return net


@lru_cache(maxsize=2)
def _opened(net: Broadcast[FrozenNet]) -> tuple[FrozenNet, Net]:
    """Return a net that has been built at most once in this process."""
    torch.set_num_threads(max(_task().cpus(), 1))
    frozen = net.value
    return frozen, frozen.build()


def _task() -> TaskContext:
    context = TaskContext.get()
    if context is None:
        raise RuntimeError("only the tasks of a Spark stage run nets")
    return context


def _slices(arrays: Sequence[Any], size: int) -> Iterator[tuple[int, list[Any]]]:
    """Yield the arrays in parts of `size` rows, each with the number of its first row."""
    for first in range(0, len(arrays[0]), size):
        yield first, [array.slice(first, size) for array in arrays]


def _run(frozen: FrozenNet, net: Net, arrays: Sequence[Any], first: int) -> None:
    """Run a net on rows; its blobs hold what comes out."""
    rows = [
        list(rows_of(array, each, first)) for array, each in zip(arrays, frozen.inputs, strict=True)
    ]
    net(BlobMaker(frozen.inputs)(rows, first))


@final
@dataclass(frozen=True)
class Evaluation:
    """Sums up losses and measures over a partition, for `map_in_arrow`.

    Attributes:
        net: The net.
        batch_size: Rows of a batch.
    """

    net: Broadcast[FrozenNet]
    batch_size: int

    SCHEMA = "metric string, total double, rows long"

    @torch.no_grad()
    def __call__(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield one record per measure: the sum over rows of its mean in their batch."""
        frozen, net = _opened(self.net)
        names = measures(net)
        totals, rows = dict.fromkeys(names, 0.0), 0
        for batch in batches:
            for first, arrays in _slices(batch.columns, self.batch_size) if batch.num_rows else ():
                _run(frozen, net, arrays, rows + first)
                count = len(arrays[0])
                for name in names:
                    totals[name] += float(net.blobs[name].double().mean()) * count
            rows += batch.num_rows
        data = [list(totals), list(totals.values()), [rows] * len(totals)]
        kinds = (pa.string(), pa.float64(), pa.int64())
        arrays = [pa.array(values, kind) for values, kind in zip(data, kinds, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, ["metric", "total", "rows"])


def measures(net: Net) -> list[str]:
    """Return the outputs of a net's losses and Accuracy layers."""
    return [
        top
        for step in net.steps
        for top in step.tops[:1]
        if (step.layer.is_loss or step.param.type == "Accuracy") and top in net.outputs
    ]


@final
@dataclass(frozen=True)
class Prediction:
    """Makes the columns of predictions, for an Arrow UDF over one column of structs.

    Attributes:
        net: The net.
        batch_size: Rows of a batch.
        head: Where predictions come from.
        wants: What the fields of the result hold: "prediction", "probability", or `blob:NAME`.
    """

    net: Broadcast[FrozenNet]
    batch_size: int
    head: Head | None
    wants: tuple[str, ...]

    @torch.no_grad()
    def __call__(self, structs: Iterator[Any]) -> Iterator[Any]:
        """Yield a struct of results for every struct of rows."""
        frozen, net = _opened(self.net)
        rows = 0
        for struct in structs:
            parts = []
            for first, arrays in _slices(struct.flatten(), self.batch_size):
                _run(frozen, net, arrays, rows + first)
                columns = [self._column(net.blobs, want, len(arrays[0])) for want in self.wants]
                parts.append(pa.StructArray.from_arrays(columns, self.fields))
            rows += len(struct)
            yield pa.concat_arrays(parts) if parts else pa.array([], self._type)

    @property
    def fields(self) -> list[str]:
        """Names of the fields of the result."""
        return [f"f{number}" for number in range(len(self.wants))]

    @property
    def schema(self) -> str:
        """Type of the result, in SQL."""
        kinds = ["double" if want == "prediction" else "array<float>" for want in self.wants]
        return f"struct<{','.join(map(' '.join, zip(self.fields, kinds, strict=True)))}>"

    @property
    def _type(self) -> Any:
        kinds = [
            pa.float64() if want == "prediction" else pa.list_(pa.float32()) for want in self.wants
        ]
        return pa.struct(list(zip(self.fields, kinds, strict=True)))

    def _column(self, blobs: Mapping[str, Tensor], want: str, count: int) -> Any:
        if want == "prediction":
            return pa.array(self._predictions(blobs, count).numpy(), pa.float64())
        if want == "probability":
            return _lists(self._probabilities(blobs, count))
        return _lists(_rows(blobs, want.removeprefix("blob:"), count))

    def _predictions(self, blobs: Mapping[str, Tensor], count: int) -> Tensor:
        head = self._known_head
        scores = _rows(blobs, head.score, count)
        if head.kind == CLASSES:
            return scores.argmax(dim=1).double()
        return (scores[:, 0] > 0).double() if head.kind == BINARY else scores[:, 0].double()

    def _probabilities(self, blobs: Mapping[str, Tensor], count: int) -> Tensor:
        values = _rows(blobs, self._known_head.probability, count)
        return torch.cat([1 - values, values], dim=1) if self._known_head.kind == BINARY else values

    @property
    def _known_head(self) -> Head:
        if self.head is None:
            raise DataError("this net has no loss that says what it predicts")
        return self.head


def _rows(blobs: Mapping[str, Tensor], name: str, count: int) -> Tensor:
    """Return a blob with a row per row of the DataFrame.

    Raises:
        DataError: It is of another form.
    """
    blob = blobs[name].float()
    if blob.dim() == 0 or blob.shape[0] != count:
        raise DataError(
            f'blob "{name}": expected a part for each of {count} rows; it is {tuple(blob.shape)}'
        )
    return blob.reshape(count, -1)


def _lists(values: Tensor) -> Any:
    count, width = values.shape
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * width)
    flat = pa.array(values.contiguous().numpy().reshape(-1), pa.float32())
    return pa.ListArray.from_arrays(offsets, flat)
