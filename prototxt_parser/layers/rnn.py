"""The plain recurrent layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from prototxt_parser.layers.base import Arity, LayerContext
from prototxt_parser.layers.ignored import ignored
from prototxt_parser.layers.recurrent import Recurrent, continued
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape


@final
@register_layer("RNN")
class RNN(Recurrent):
    """h_t = tanh(W_h·(cont_t·h_{t-1}) + W_x·x_t + b + W_static·x_static).

    The top is o_t = tanh(W_o·h_t + b_o).
    Without `expose_hidden` h_0 is the final state of the last forward, at first 0; cont_1 = 0
    ignores it. No gradient crosses forwards.

    Shape: x (T, N, …), cont (T, N), maybe x_static (N, …), with `expose_hidden` h_0 (1, N, H)
      -> o (T, N, H), with `expose_hidden` h_T (1, N, H); H is `num_output`, T stays as built.
    Blobs: weight_x (H, D); bias (H); weight_static (H, S) if there is x_static; weight_h (H, H);
    weight_o (H, H); bias_o (H).
    Like Caffe: h_0 gets no gradient and that of h_T is ignored; nor does cont get one. The carried
    state is in no snapshot; with other N than before it is 0 (in Caffe, meaningless).
    Differs from PyTorch: the output has weights and a tanh of its own.
    Source: caffe/src/caffe/layers/rnn_layer.cpp, RNNLayer.
    """

    param_fields = ("recurrent_param",)
    ignored_fields = ignored("recurrent_param", debug_info="a step is no layer of the net")
    bottom_count = Arity(2, 4)
    top_count = Arity(1, 2)
    gates = 1
    state_names = ("hidden",)
    weight_o: nn.Parameter
    bias_o: nn.Parameter

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Add the blobs of the output."""
        super().__init__(param, bottoms, context)
        settings = param.recurrent_param
        self.add_blob("weight_o", (self.size, self.size), settings.weight_filler)
        self.add_blob("bias_o", (self.size,), settings.bias_filler)

    def _run(
        self, drive: Tensor, cont: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        hidden, history = states[0], []
        for drive_t, cont_t in zip(drive, cont, strict=True):
            recurrent = functional.linear(continued(hidden, cont_t), self.weight_h)
            hidden = torch.tanh(recurrent + drive_t)
            history.append(hidden)
        outputs = torch.tanh(functional.linear(torch.stack(history), self.weight_o, self.bias_o))
        return outputs, [hidden]
