"""Layers that the user writes in Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer, LayerContext, at_least
from prototxt_parser.layers.ignored import ignored
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.live_blob import Blob
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.python_layer import PythonLayerBase
from prototxt_parser.shapes import Shape
from prototxt_parser.user_code import UserCodeError, import_allowed
from prototxt_parser.user_code import allow_python_layers as allow_python_layers


@final
@register_layer("Python")
class Python(Layer):
    """Whatever the class `layer` of the module `module` computes, on the CPU in float32.

    Runs only if the module was allowed by name (`allow_python_layers`). The class derives from
    `caffe.Layer` and gets `param_str`; its blobs are learned like any others. Not a loss unless
    the definition gives a `loss_weight`.

    Shape: any blobs -> what the class's `reshape` says.
    Blobs: those that the class adds to `self.blobs` in `setup`.
    Differs from Caffe: outside of pycaffe the diffs of its blobs start from 0 in every backward
    pass and are then added to the accumulated ones, also by a class that overwrites them.
    Differs from PyTorch: a module there gets its gradients from autograd; this class computes them.
    Source: caffe/include/caffe/layers/python_layer.hpp, PythonLayer.

    Attributes:
        user: The object of the user's class.
        tops: The blobs that it was set up with.
    """

    param_fields = ("python_param",)
    ignored_fields = ignored("python_param", share_in_parallel="one process trains one net")
    bottom_count = at_least(0)
    top_count = at_least(0)

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Make the user's object, set it up, and add its blobs."""
        super().__init__(param, bottoms, context)
        self.name = f"{param.python_param.module}.{param.python_param.layer}"
        self._bottoms = [Blob(shape) for shape in bottoms]
        self.tops = [Blob() for _ in param.top]
        user_class = self._user_class()
        with self.user_code():
            self.user = user_class(param.python_param.param_str, context.phase)
            self.user.setup(self._bottoms, self.tops)
        for index, blob in enumerate(self.user.blobs):
            self.add_blob(f"blob{index}", blob.shape, caffe_pb2.FillerParameter())
            if not param.blobs:
                self.blobs[index].data.copy_(blob.values())

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return what the user's `reshape` gives the tops."""
        for blob, shape in zip(self._bottoms, bottoms, strict=True):
            blob.resize(shape)
        with self.user_code():
            self.user.reshape(self._bottoms, self.tops)
        return [blob.shape for blob in self.tops]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Run the user's code, with a gradient if anything needs one."""
        tops: tuple[Tensor, ...] = _Run.apply(self, len(bottoms), *bottoms, *self.blobs)  # type: ignore[no-untyped-call]
        return tops

    @contextmanager
    def user_code(self) -> Iterator[None]:
        """Turn what the user's code raises into a `UserCodeError`."""
        try:
            yield
        except (
            Exception,
            SystemExit,
        ) as error:  # whatever the user's code raises, the user has to see it
            raise UserCodeError(f"{self.name} raised {type(error).__name__}: {error}") from error

    def run_forward(self, bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the tops for these bottoms, as copies."""
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        self._fill(bottoms)
        with self.user_code():
            self.user.forward(self._bottoms, self.tops)
        like = self._example(bottoms)
        for parameter, blob in zip(self.blobs, self.user.blobs, strict=True):
            parameter.data.copy_(blob.values())
        return tuple(top.values().to(like, copy=True) for top in self.tops)

    def run_backward(
        self, bottoms: Sequence[Tensor], gradients: Sequence[Tensor], wanted: Sequence[bool]
    ) -> list[Tensor | None]:
        """Return the gradients of the bottoms that `wanted` marks, then those of the blobs."""
        self._fill(bottoms)
        for top, gradient in zip(self.tops, gradients, strict=True):
            top.gradients().copy_(gradient)
        for blob in [*self._bottoms, *self.user.blobs]:
            blob.diff[...] = 0
        with self.user_code():
            self.user.backward(self.tops, list(wanted), self._bottoms)
        like = self._example(bottoms)
        diffs = [
            blob.gradients().to(like, copy=True) for blob in (*self._bottoms, *self.user.blobs)
        ]
        marks = [*wanted, *[True] * len(self.user.blobs)]
        return [diff if mark else None for diff, mark in zip(diffs, marks, strict=True)]

    def _fill(self, bottoms: Sequence[Tensor]) -> None:
        for blob, value in zip(self._bottoms, bottoms, strict=True):
            blob.values().copy_(value.detach())
        for blob, parameter in zip(self.user.blobs, self.blobs, strict=True):
            blob.values().copy_(parameter.detach())

    def _example(self, bottoms: Sequence[Tensor]) -> Tensor:
        """Return a tensor of the net's device and type."""
        tensors = [*bottoms, *self.blobs]
        return tensors[0] if tensors else torch.empty(0, dtype=self.context.dtype)

    def _user_class(self) -> type[PythonLayerBase]:
        settings = self.param.python_param
        found = getattr(import_allowed(settings.module), settings.layer, None)
        if not (isinstance(found, type) and issubclass(found, PythonLayerBase)):
            what = "not there" if found is None else f"not one: {found!r}"
            raise LayerError(
                f'python_param: module "{settings.module}" must have a class "{settings.layer}" '
                f"derived from caffe.Layer, which is pycaffe's; it is {what}"
            )
        return found


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, layer: Python, bottoms: int, *tensors: Tensor) -> Any:
        context.layer, context.bottoms = layer, bottoms
        context.save_for_backward(*tensors)
        return layer.run_forward(tensors[:bottoms])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        wanted = context.needs_input_grad[2 : 2 + context.bottoms]
        bottoms = context.saved_tensors[: context.bottoms]
        return (None, None, *context.layer.run_backward(bottoms, gradients, wanted))
