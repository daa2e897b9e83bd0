"""Blobs whose values and gradients are NumPy arrays that others may write at any time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.shapes import Shape, check_shape, count, shape_text

FloatArray = NDArray[np.float32]


class Blob:
    """Two float32 arrays of one shape, as Caffe's Blob.

    `data` and `diff` are views of the blob's memory, which they keep alive. Memory is replaced, and
    older views go stale, only when a reshape needs more than there is; the new one holds zeros.
    Source: caffe/include/caffe/blob.hpp, Blob; caffe/python/caffe/_caffe.cpp.

    Args:
        shape: Dims; none for a scalar.

    Attributes:
        shape: Dims.
    """

    def __init__(self, shape: Iterable[int] = ()) -> None:
        self.shape: Shape = tuple(shape)
        self._data = np.zeros(self.count, np.float32)
        self._diff = np.zeros(self.count, np.float32)
        self._is_borrowed = False
        self._new_diff = 0.0

    @property
    def data(self) -> FloatArray:
        """The values; a 0-d array for a scalar."""
        return self._data[: self.count].reshape(self.shape)

    @property
    def diff(self) -> FloatArray:
        """The gradients."""
        return self._diff[: self.count].reshape(self.shape)

    @property
    def count(self) -> int:
        """Number of values."""
        return count(self.shape)

    @property
    def num(self) -> int:
        """Dim 0; 1 if there is none."""
        return self._legacy_dim(0)

    @property
    def channels(self) -> int:
        """Dim 1; 1 if there is none."""
        return self._legacy_dim(1)

    @property
    def height(self) -> int:
        """Dim 2; 1 if there is none."""
        return self._legacy_dim(2)

    @property
    def width(self) -> int:
        """Dim 3; 1 if there is none."""
        return self._legacy_dim(3)

    def reshape(self, *dims: int, **named: Any) -> None:
        """Take another shape.

        Raises:
            TypeError: Dims by name.
            LayerError: A dim is negative, or the blob is a net's parameter and would grow.
        """
        if named:
            raise TypeError("Blob.reshape takes no kwargs")
        self.resize(tuple(int(dim) for dim in dims))

    def resize(self, shape: Shape) -> None:
        """Take another shape.

        Raises:
            LayerError: As `reshape`.
        """
        check_shape(shape)
        size = count(shape)
        if size > len(self._data) and self._is_borrowed:
            raise LayerError(
                f"a parameter's memory is the net's: it cannot grow from {shape_text(self.shape)} "
                f"to {shape_text(shape)}; change the definition instead"
            )
        if size > len(self._data):
            self._data, self._diff = np.zeros(size, np.float32), self._diff[:0]
        self.shape = shape
        self._extend_diff()

    def fill_diff(self, value: float) -> None:
        """Set all diffs to `value`, those in memory to come as well: a loss weight stays one."""
        self._diff[...] = self._new_diff = value

    def values(self) -> Tensor:
        """Return a tensor over the memory of `data`; autograd does not see who else writes it."""
        return torch.from_numpy(self.data)

    def gradients(self) -> Tensor:
        """Return a tensor over the memory of `diff`."""
        return torch.from_numpy(self.diff)

    def borrow(self, data: Tensor, diff: Tensor | None = None) -> None:
        """Use the memory of contiguous CPU tensors from now on; without `diff` keep the own one."""
        self.shape = tuple(data.shape)
        self._data, self._is_borrowed = data.detach().numpy().reshape(-1), diff is not None
        if diff is not None:
            self._diff = diff.detach().numpy().reshape(-1)
        self._extend_diff()

    def share_data(self, other: Blob, shape: Shape) -> None:
        """Have the values of `other` in another shape of as many values, in the same memory."""
        self.shape, self._data = shape, other._data
        self._extend_diff()

    def share(self, other: Blob) -> None:
        """Be the same memory as `other`."""
        self.shape, self._data, self._diff = other.shape, other._data, other._diff
        self._is_borrowed = other._is_borrowed

    def _extend_diff(self) -> None:
        if len(self._diff) < self.count:
            self._diff = np.full(self.count, self._new_diff, np.float32)

    def _legacy_dim(self, axis: int) -> int:
        if len(self.shape) > 4:
            raise LayerError("Cannot use legacy accessors on Blobs with > 4 axes.")
        return self.shape[axis] if axis < len(self.shape) else 1


class BlobVec(list[Blob]):
    """Blobs of one layer.

    Source: caffe/python/caffe/pycaffe.py, the extensions of BlobVec.
    """

    def __init__(self, blobs: Sequence[Blob] = ()) -> None:
        super().__init__(blobs)

    def add_blob(self, *dims: int) -> Blob:
        """Append a blob of zeros of this shape; return it."""
        blob = Blob(dims)
        self.append(blob)
        return blob
