"""Long short-term memory: the layer, and one step of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Arity, Layer, exactly
from prototxt_parser.layers.ignored import ignored
from prototxt_parser.layers.recurrent import Recurrent, continued
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.shapes import Shape


@final
@register_layer("LSTM")
class LSTM(Recurrent):
    """LSTMUnit steps over z_t = W_h·(cont_t·h_{t-1}) + W_x·x_t + b + W_static·x_static.

    Without `expose_hidden` h_0 and c_0 are the final states of the last forward, at first 0;
    cont_1 = 0 ignores them. No gradient crosses forwards.

    Shape: x (T, N, …), cont (T, N), maybe x_static (N, …), with `expose_hidden` h_0 and c_0
      (1, N, H) -> h (T, N, H), with `expose_hidden` h_T and c_T (1, N, H); H is `num_output`, T
      stays as built.
    Blobs: weight_x (4H, D); bias (4H); weight_static (4H, S) if there is x_static; weight_h
    (4H, H); the gates in the order input, forget, output, candidate.
    Like Caffe: initial states get no gradient and that of final ones is ignored; nor does cont get
    one. The carried states are in no snapshot; with other N than before they are 0 (in Caffe,
    meaningless). Where cont is 0 a NaN in h_{t-1} is forgotten, one in c_{t-1} is not.
    Differs from PyTorch: another order of the gates, one bias.
    Source: caffe/src/caffe/layers/lstm_layer.cpp, LSTMLayer.
    """

    param_fields = ("recurrent_param",)
    ignored_fields = ignored("recurrent_param", debug_info="a step is no layer of the net")
    bottom_count = Arity(2, 5)
    top_count = Arity(1, 3)
    gates = 4
    state_names = ("hidden", "cell")

    def _run(
        self, drive: Tensor, cont: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        (hidden, cell), history = states, []
        for drive_t, cont_t in zip(drive, cont, strict=True):
            gates = functional.linear(continued(hidden, cont_t), self.weight_h) + drive_t
            cell, hidden = lstm_step(cell, gates, cont_t)
            history.append(hidden)
        return torch.stack(history), [hidden, cell]


@final
@register_layer("LSTMUnit")
class LSTMUnit(Layer):
    """One step: c = cont·σ(f)·c_prev + σ(i)·tanh(g), h = σ(o)·tanh(c).

    Shape: c_prev (1, N, H), gates (1, N, 4H) in the order i, f, o, g, cont (1, N)
      -> c and h (1, N, H).
    Like Caffe: a NaN in c_prev stays where cont is 0; with F = cont·σ(f) the gradient of f is that
    of a gate, F·(1 - F), which is the derivative for a cont of 0 or 1 only. cont gets no gradient.
    Differs from PyTorch: LSTMCell has the gates in the order i, f, g, o and weights of its own.
    Source: caffe/src/caffe/layers/lstm_unit_layer.cpp, LSTMUnitLayer.
    """

    bottom_count = exactly(3)
    top_count = exactly(2)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the cell's shape twice."""
        cell, gates, cont = bottoms
        streams, size = (cell[1], cell[2]) if len(cell) == 3 else (0, 0)
        if (cell, gates, cont) != ((1, streams, size), (1, streams, 4 * size), (1, streams)):
            raise LayerError(
                "expected shapes (1, N, H), (1, N, 4H) and (1, N); "
                f"received {', '.join(map(str, bottoms))}"
            )
        return [cell, cell]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the cell and the hidden state."""
        self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
        cell, gates, cont = bottoms
        return lstm_step(cell, gates, cont.detach().unsqueeze(-1))


def lstm_step(cell: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
    """Return the next cell and hidden state: (…, H), (…, 4H), (…, 1) -> (…, H) twice."""
    i, f, o, g = gates.chunk(4, dim=-1)
    forget: Tensor = _ForgetGate.apply(f, cont)  # type: ignore[no-untyped-call]
    cell = forget * cell + torch.sigmoid(i) * torch.tanh(g)
    return cell, torch.sigmoid(o) * torch.tanh(cell)


class _ForgetGate(torch.autograd.Function):
    """cont · σ(f) with Caffe's gradient, for which it is one gate whatever cont is."""

    @staticmethod
    def forward(ctx: Any, f: Tensor, cont: Tensor) -> Tensor:
        gate = continued(torch.sigmoid(f), cont)
        ctx.save_for_backward(gate)
        return gate

    @staticmethod
    def backward(ctx: Any, *diffs: Tensor) -> tuple[Tensor, None]:
        (gate,) = ctx.saved_tensors
        return diffs[0] * gate * (1 - gate), None
