"""Caffe's Net for Python: blobs and parameters as NumPy arrays, passes over ranges of layers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from prototxt_parser.errors import PrototxtError
from prototxt_parser.files import read_net
from prototxt_parser.live_blob import FloatArray
from prototxt_parser.live_net import Hook
from prototxt_parser.random_source import RandomSource
from prototxt_parser.state import file_state
from prototxt_parser.weights import load_weights, save_weights
from prototxt_parser.weights_hdf5 import load_hdf5, save_hdf5
from pycaffe.batches import Batches, cut, zipped
from pycaffe.building import StrPath, build_live_net, check_file, find_prototxt
from pycaffe.feeds import MemoryFeed
from pycaffe.net_view import NetView
from pycaffe.runtime import NCCL, next_seed, raise_no_nccl

logger = logging.getLogger(__name__)

Arrays = dict[str, FloatArray]


class Net(NetView):
    """A net for one phase.

    `Net(file, phase)`, `Net(file, phase, weights="x.caffemodel")`, or Caffe's old
    `Net(file, weights, phase)`.

    Differs from Caffe: what ends Caffe's process raises a PrototxtError; arrays are the CPU's.
    Source: caffe/python/caffe/pycaffe.py, _caffe.cpp.

    Args:
        network_file: Definition.
        phase: TRAIN or TEST.
        level: Level of the state.
        stages: Stages, added to those of the file.
        weights: Trained parameters to load.

    Raises:
        RuntimeError: A file is not there.
        PrototxtError: The net cannot be built, or the weights do not fit.
    """

    def __init__(
        self,
        network_file: StrPath,
        phase: int | StrPath,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: StrPath | None = None,
    ) -> None:
        if isinstance(phase, str | os.PathLike):
            logger.warning(
                'DEPRECATION WARNING - deprecated use of Python interface; use Net("%s", %d, '
                'weights="%s")',
                network_file,
                level,
                phase,
            )
            weights, phase, level = phase, level, 0
        definition = read_net(find_prototxt(network_file))
        weights = None if weights is None else check_file(weights)
        state = file_state(definition, phase, level, stages or ())
        self._adopt(build_live_net(definition, state, RandomSource(next_seed()))[0])
        if weights is not None:
            self.copy_from(weights)

    def forward(
        self,
        blobs: Iterable[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **inputs: ArrayLike,
    ) -> Arrays:
        """Run layers forward.

        Args:
            blobs: Names of blobs to return besides.
            start: First layer; the net's first unless given.
            end: Last layer, included; the net's last unless given.
            **inputs: An array for every net input, broadcast into its blob.

        Returns:
            The outputs, or the tops of `end`: views that the next pass overwrites.

        Raises:
            ValueError: Inputs that do not match the net's, or an unknown layer.
            PrototxtError: A layer refuses its bottoms.
        """
        return self._forward_named(inputs, blobs, start, end)

    def backward(
        self,
        diffs: Iterable[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **top_diffs: ArrayLike,
    ) -> Arrays:
        """Run layers backward; parameters' diffs add up, blobs' are overwritten.

        Args:
            diffs: Names of blobs whose diffs to return besides.
            start: First layer to run, the topmost; the net's last unless given.
            end: Last layer to run, included; the net's first unless given.
            **top_diffs: A diff for every net output, broadcast into its blob.

        Returns:
            The diffs of the inputs, or of the bottoms of `end`, as views.

        Raises:
            ValueError: Diffs that do not match the net's outputs, or an unknown layer.
            PrototxtError: There was no forward pass.
        """
        return self._backward_named(top_diffs, diffs, start, end)

    def forward_all(self, blobs: Iterable[str] | None = None, **inputs: ArrayLike) -> Arrays:
        """Run inputs of any length in batches of the first blob's size; return copies of all."""
        outs = Batches()
        for batch in cut(inputs, self._batch_size()):
            outs.add(self._forward_named(batch, blobs))
        return outs.joined(_length(inputs))

    def forward_backward_all(
        self,
        blobs: Iterable[str] | None = None,
        diffs: Iterable[str] | None = None,
        **arrays: ArrayLike,
    ) -> tuple[Arrays, Arrays]:
        """Run inputs and output diffs of any length in batches; return copies of all.

        Returns:
            What `forward` returns, and what `backward` does.
        """
        size, outs, gradients = self._batch_size(), Batches(), Batches()
        inputs = {name: arrays[name] for name in self.inputs if name in arrays}
        seeds = {name: arrays[name] for name in self.outputs if name in arrays}
        for batch, seed in zipped(cut(inputs, size), cut(seeds, size)):
            outs.add(self._forward_named(batch, blobs))
            gradients.add(self._backward_named(seed, diffs))
        return outs.joined(_length(arrays)), gradients.joined(_length(arrays))

    def reshape(self) -> None:
        """Give every blob the shape that follows from the inputs'."""
        self.live.reshape()

    def clear_param_diffs(self) -> None:
        """Set the parameters' diffs to 0."""
        self.live.clear_param_diffs()

    def copy_from(self, path: StrPath) -> None:
        """Load trained parameters, binary or HDF5, by layer name."""
        load_weights(self.live, Path(path))

    def load_hdf5(self, path: StrPath) -> None:
        """Load trained parameters from HDF5."""
        load_hdf5(self.live, Path(path))

    def save(self, path: StrPath) -> None:
        """Write a binary caffemodel, without diffs."""
        save_weights(self.live, Path(path))

    def save_hdf5(self, path: StrPath) -> None:
        """Write an HDF5 caffemodel, without diffs."""
        save_hdf5(self.live, Path(path))

    def share_with(self, other: Net) -> None:
        """Use the parameters of `other`, by layer name, in the same memory; diffs stay apart.

        Raises:
            PrototxtError: Shapes differ, or a solver trains this net in memory of its own.
        """
        if self._is_trained:
            raise PrototxtError(
                "a solver updates this net's parameters where they are: copy weights in with "
                "copy_from, or let the other net share these with solver.share_weights(net)"
            )
        self.live.share_with(other.live)

    def set_input_arrays(self, data: FloatArray, labels: FloatArray) -> None:
        """Give the first layer, a MemoryData layer, float32 data (n, C, H, W) and n labels.

        Raises:
            RuntimeError: It is another layer, or the arrays are not what it needs.
        """
        feed = self.live.live[0].feed if self.live.live else None
        if not isinstance(feed, MemoryFeed):
            raise RuntimeError(
                "set_input_arrays may only be called if the first layer is a MemoryDataLayer"
            )
        if labels.ndim == 1:
            labels = np.ascontiguousarray(labels[:, None, None, None])
        feed.set_arrays(data, labels)

    def before_forward(self, hook: Hook) -> None:
        """Run `hook` with a layer's number before every layer of a forward pass."""
        self.live.hooks.before_forward.append(hook)

    def after_forward(self, hook: Hook) -> None:
        """Run `hook` with a layer's number after every layer of a forward pass."""
        self.live.hooks.after_forward.append(hook)

    def before_backward(self, hook: Hook) -> None:
        """Run `hook` with a layer's number before every layer of a backward pass."""
        self.live.hooks.before_backward.append(hook)

    def after_backward(self, hook: Hook | NCCL) -> None:
        """Run `hook` with a layer's number after every layer of a backward pass."""
        if isinstance(hook, NCCL):
            raise_no_nccl()
        self.live.hooks.after_backward.append(hook)

    def _forward_named(
        self,
        inputs: Mapping[str, ArrayLike],
        blobs: Iterable[str] | None,
        start: str | None = None,
        end: str | None = None,
    ) -> Arrays:
        first = 0 if start is None else self._index(start)
        last = len(self.layers) - 1 if end is None else self._index(end)
        found = self.outputs if end is None else self.top_names[end]
        if inputs:
            _check(inputs, self.inputs, "Input blob arguments do not match net inputs.")
        for name, value in inputs.items():
            _write(value, self.blobs[name].data, f"Input is not batch sized: '{name}'")
        self._forward(first, last)
        return {name: self.blobs[name].data for name in [*found, *(blobs or ())]}

    def _backward_named(
        self,
        top_diffs: Mapping[str, ArrayLike],
        diffs: Iterable[str] | None,
        start: str | None = None,
        end: str | None = None,
    ) -> Arrays:
        first = len(self.layers) - 1 if start is None else self._index(start)
        last = 0 if end is None else self._index(end)
        found = self.inputs if end is None else self.bottom_names[end]
        if top_diffs:
            _check(top_diffs, self.outputs, "Top diff arguments do not match net outputs.")
        for name, value in top_diffs.items():
            _write(value, self.blobs[name].diff, f"Diff is not batch sized: '{name}'")
        self._backward(first, last)
        return {name: self.blobs[name].diff for name in [*found, *(diffs or ())]}

    def _forward(self, start: int, end: int) -> float:
        """Run the layers `start` to `end`, both included; return the loss of these layers."""
        self._check_range(start, end)
        return self.live.run_forward(start, end)

    def _backward(self, start: int, end: int) -> None:
        """Run the layers `start` down to `end`, both included."""
        self._check_range(end, start)
        self.live.run_backward(start, end)


def _check(given: Mapping[str, ArrayLike], names: Sequence[str], mismatch: str) -> None:
    if set(given) != set(names):
        raise ValueError(f"{mismatch} Expected {sorted(names)}; received {sorted(given)}")


def _write(value: ArrayLike, memory: FloatArray, wrong_size: str) -> None:
    if np.shape(value)[:1] != memory.shape[:1]:
        raise ValueError(f"{wrong_size} expects {memory.shape}; received {np.shape(value)}")
    memory[...] = value


def _length(arrays: Mapping[str, ArrayLike]) -> int:
    return len(np.asarray(next(iter(arrays.values()))))
