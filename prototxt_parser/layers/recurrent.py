"""What RNN and LSTM share: streams of sequences, their states, the weights around a step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Arity, Layer, LayerContext, exactly
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, count, shape_text


class Recurrent(Layer):
    """N streams through T time steps, x (T, N, …), with continuation marks (T, N).

    Attributes:
        gates: How many vectors of `num_output` values a step makes of its input.
        state_names: Buffers that hold the final states of the last forward, each (1, N, H).

    Source: caffe/src/caffe/layers/recurrent_layer.cpp, RecurrentLayer.
    """

    gates: ClassVar[int]
    weight_x: nn.Parameter
    bias: nn.Parameter
    weight_static: nn.Parameter
    weight_h: nn.Parameter

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Work out which bottoms there are and add the blobs."""
        super().__init__(param, bottoms, context)
        settings = param.recurrent_param
        self.size = settings.num_output
        if self.size == 0:
            raise LayerError("num_output must be positive; received 0")
        self.exposed = len(self.state_names) if settings.expose_hidden else 0
        Arity(2 + self.exposed, 3 + self.exposed).check(param.type, "bottom", len(bottoms))
        exactly(1 + self.exposed).check(param.type, "top", self.num_tops)
        self.inputs, self.steps = self._input_sizes(bottoms), bottoms[0][0]
        rows, weight_filler = self.gates * self.size, settings.weight_filler
        self.add_blob("weight_x", (rows, self.inputs[0]), weight_filler)
        self.add_blob("bias", (rows,), settings.bias_filler)
        for size in self.inputs[1:]:
            self.add_blob("weight_static", (rows, size), weight_filler)
        self.add_blob("weight_h", (rows, self.size), weight_filler)
        for name in self.state_names:
            state = torch.zeros(1, bottoms[0][1], self.size, dtype=context.dtype)
            self.register_buffer(name, state, persistent=False)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the outputs' shape, then those of the exposed final states."""
        inputs, (steps, streams) = self._input_sizes(bottoms), bottoms[0][:2]
        if steps != self.steps:
            raise LayerError(
                f"input number of timesteps changed: expected {self.steps}; received {steps}"
            )
        if inputs != self.inputs:
            raise LayerError(
                "Input size incompatible with inner product parameters: "
                f"expected {self.inputs} values per stream; received {inputs}"
            )
        state = (1, streams, self.size)
        for i in range(len(bottoms) - self.exposed, len(bottoms)):
            if bottoms[i] != state:
                raise LayerError(
                    f"bottom[{i}] shape must match hidden state input shape: expected "
                    f"{shape_text(state)}; received {shape_text(bottoms[i])}"
                )
        return [(steps, streams, self.size), *[state] * self.exposed]

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run all time steps."""
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        x, cont = bottoms[0], bottoms[1].detach().unsqueeze(-1)
        drive = functional.linear(x.reshape(*x.shape[:2], self.inputs[0]), self.weight_x, self.bias)
        for static in bottoms[2 : len(bottoms) - self.exposed]:
            drive = drive + functional.linear(
                static.reshape(-1, self.inputs[1]), self.weight_static
            )
        given = bottoms[len(bottoms) - self.exposed :] or self._carried(x.shape[1])
        outputs, states = self._run(drive, cont, [state.detach()[0] for state in given])
        finals = [state.detach().unsqueeze(0) for state in states]
        if self.exposed:
            return (outputs, *finals)
        for name, final in zip(self.state_names, finals, strict=True):
            setattr(self, name, final)
        return outputs

    def _input_sizes(self, bottoms: Sequence[Shape]) -> list[int]:
        """Return the values per stream of x, in each step, and of x_static if there is one."""
        x, cont, *static = bottoms[: len(bottoms) - self.exposed]
        if len(x) < 2 or x[0] < 1:
            raise LayerError(
                "bottom[0] must have at least 2 axes -- (#timesteps, #streams, ...) -- and a time "
                f"step; received {shape_text(x)}"
            )
        if cont != x[:2]:
            raise LayerError(
                "bottom[1] must have exactly 2 axes -- (#timesteps, #streams), as bottom[0] has: "
                f"expected {shape_text(x[:2])}; received {shape_text(cont)}"
            )
        if any(shape[:1] != x[1:2] for shape in static):
            raise LayerError(
                f"bottom[2], the static input, must have a row for each of {x[1]} streams; "
                f"received {shape_text(static[0])}"
            )
        return [count(x, 2), *(count(shape, 1) for shape in static)]

    def _carried(self, streams: int) -> list[Tensor]:
        """Return the final states of the last forward; zeros if it had other streams."""
        states: list[Tensor] = [getattr(self, name) for name in self.state_names]
        return [
            state if state.shape[1] == streams else state.new_zeros(1, streams, self.size)
            for state in states
        ]

    @abstractmethod
    def _run(
        self, drive: Tensor, cont: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the outputs and final states.

        Args:
            drive: What the input adds to each step, (T, N, gates · H).
            cont: Continuation marks, (T, N, 1).
            states: Initial states, each (N, H).
        """


def continued(hidden: Tensor, cont: Tensor) -> Tensor:
    """Return `hidden` times `cont`; 0 where `cont` is 0, even of NaN."""
    return torch.where(cont == 0, 0, hidden * cont)
