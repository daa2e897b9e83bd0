"""Where the batches of a net's data layers come from: files, or arrays in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from prototxt_parser.data_spec import DataSpec
from prototxt_parser.errors import LayerError
from prototxt_parser.live_blob import FloatArray
from prototxt_parser.proto import caffe_pb2
from trainer.data.feed import NetFeed, open_feed


@final
class LayerFeeds:
    """One feed for each data layer of a net, pulled by the layer itself when it runs.

    So a pass that starts above a data layer takes no batch from it. For a solver, which asks for
    the batches of all layers at once, there is nothing left to fetch: it gets none.

    Args:
        specs: The data layers.
        seed: Of what is random in the data.

    Raises:
        UsageError, DataError: As `trainer.data.feed.open_feed`.
    """

    def __init__(self, specs: Sequence[DataSpec], seed: int) -> None:
        self.by_tops: dict[tuple[str, ...], NetFeed] = {}
        try:
            for number, spec in enumerate(specs):
                self.by_tops[spec.tops] = open_feed([spec], seed=seed + number)
        except BaseException:
            self.close()
            raise

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every top of the data layers."""
        feeds = self.by_tops.values()
        return {top: shape for feed in feeds for top, shape in feed.shapes.items()}

    def next(self) -> dict[str, Tensor]:
        """Return no blobs: the layers fetch their own."""
        return {}

    def skip(self, batches: int) -> None:
        """Pass over batches of all layers."""
        for feed in self.by_tops.values():
            feed.skip(batches)

    def state_dict(self) -> dict[str, Any]:
        """Return the positions, in the form of a `NetFeed` over all layers."""
        states = [feed.state_dict() for feed in self.by_tops.values()]
        return {"layers": [layer for state in states for layer in state["layers"]]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to positions that `state_dict` returned."""
        for feed, layer in zip(self.by_tops.values(), state["layers"], strict=True):
            feed.load_state_dict({"layers": [layer]})

    def close(self) -> None:
        """Let all files go. Idempotent."""
        for feed in self.by_tops.values():
            feed.close()


@final
class MemoryFeed:
    """The batches of a MemoryData layer: arrays of the caller's, in a circle, not copied.

    Source: caffe/src/caffe/layers/memory_data_layer.cpp, MemoryDataLayer::Reset, Forward_cpu;
        caffe/python/caffe/_caffe.cpp, Net_SetInputArrays.
    """

    def __init__(self, param: caffe_pb2.LayerParameter) -> None:
        self._settings, self._tops = param.memory_data_param, tuple(param.top)
        self._data: FloatArray | None = None
        self._labels: FloatArray | None = None
        self._position = 0

    def set_arrays(self, data: FloatArray, labels: FloatArray) -> None:
        """Take data (n, C, H, W) and labels (n, 1, 1, 1) and start with the first batch.

        Raises:
            RuntimeError: The arrays are not what the layer is declared for.
        """
        settings = self._settings
        _check(data, "data array", (settings.channels, settings.height, settings.width))
        _check(labels, "labels array", (1, 1, 1))
        if len(data) != len(labels):
            raise RuntimeError("data and labels must have the same first dimension")
        if len(data) % settings.batch_size:
            raise RuntimeError("first dimensions of input arrays must be a multiple of batch size")
        self._data, self._labels, self._position = data, labels, 0

    def next(self) -> dict[str, Tensor]:
        """Return the next batch.

        Raises:
            LayerError: There are no arrays.
        """
        if self._data is None or self._labels is None or not len(self._data):
            raise LayerError(
                "MemoryDataLayer needs to be initialized by calling Reset: call set_input_arrays"
            )
        rows = slice(self._position, self._position + self._settings.batch_size)
        self._position = rows.stop % len(self._data)
        values = (self._data[rows], self._labels[rows])
        return {top: torch.tensor(value) for top, value in zip(self._tops, values, strict=True)}


def _check(array: FloatArray, name: str, dims: tuple[int, int, int]) -> None:
    if not array.flags.c_contiguous:
        raise RuntimeError(f"{name} must be C contiguous")
    if array.ndim != 4:
        raise RuntimeError(f"{name} must be 4-d")
    if array.dtype != np.float32:
        raise RuntimeError(f"{name} must be float32")
    for axis, size, what in zip((1, 2, 3), dims, ("channels", "height", "width"), strict=True):
        if array.shape[axis] != size:
            raise RuntimeError(
                f"{name} has wrong number of {what}" if axis == 1 else f"{name} has wrong {what}"
            )
