"""Gradients of every layer type against differences of its forward pass, in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from prototxt_parser import Net, build_net
from prototxt_parser.layers.registry import layer_class, layer_types
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text

Bottom = Callable[[torch.Generator], Tensor]


def real(*shape: int, low: float = -2, high: float = 2) -> Bottom:
    """A bottom that gets a gradient."""

    def draw(generator: torch.Generator) -> Tensor:
        values = torch.empty(shape, dtype=torch.float64).uniform_(low, high, generator=generator)
        return values.requires_grad_()

    return draw


def given(*values: object) -> Bottom:
    """A bottom of labels, indices or marks, which gets none."""
    return lambda generator: torch.tensor(values, dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    type: str
    settings: str
    bottoms: tuple[Bottom, ...]
    tops: int = 1

    def build(self, bottoms: list[Tensor]) -> Net:
        inputs = [
            f'layer {{ name: "in{i}" type: "Input" top: "b{i}" input_param {{ shape {{ '
            f"{' '.join(f'dim: {dim}' for dim in bottom.shape)} }} }} }}"
            for i, bottom in enumerate(bottoms)
        ]
        wires = [f'bottom: "b{i}"' for i in range(len(bottoms))]
        wires += [f'top: "t{i}"' for i in range(self.tops)]
        layer = f'layer {{ name: "l" type: "{self.type}" {" ".join(wires)} {self.settings} }}'
        param = parse_text("\n".join([*inputs, layer]), caffe_pb2.NetParameter(), self.type)
        return build_net(param, "TRAIN", seed=1, dtype=torch.float64)


def case(type_name: str, settings: str, *bottoms: Bottom, tops: int = 1) -> Case:
    return Case(type_name, settings, bottoms, tops)


IMAGE = real(2, 3, 5, 4)
POSITIVE = real(2, 3, 5, low=0.5)
CONT = given([0, 0], [1, 0], [1, 1])  # 3 steps of 2 streams; nothing is carried over into the first

CASES = [
    case("AbsVal", "", real(2, 3, 5)),
    case("BNLL", "", real(2, 3, 5, low=-9, high=9)),
    case("BatchNorm", "", IMAGE),
    case("BatchNorm", "batch_norm_param { use_global_stats: true }", IMAGE),
    case("BatchReindex", "", real(3, 2, 4), given(2, 0, 2, 1, 2)),
    case("Bias", "bias_param { axis: 1 num_axes: 2 }", IMAGE),
    case("Bias", "bias_param { axis: 0 }", IMAGE, real(2, 3)),
    case("Clip", "clip_param { min: -0.5 max: 0.8 }", real(2, 3, 5)),
    case("Concat", "", real(2, 3, 5), real(2, 4, 5)),
    case("ContrastiveLoss", "contrastive_loss_param { margin: 4 }",
         real(4, 3), real(4, 3), given(0, 1, 0, 1)),
    case("ContrastiveLoss", "contrastive_loss_param { margin: 9 legacy_version: true }",
         real(4, 3), real(4, 3), given(0, 1, 0, 1)),
    case("Convolution",
         "convolution_param { num_output: 6 group: 3 kernel_size: 3 stride: 2 pad: 1 }", IMAGE),
    case("Crop", "crop_param { axis: 1 offset: 1 }", IMAGE, given(*[[[[0] * 3] * 4] * 2] * 2)),
    case("Deconvolution",
         "convolution_param { num_output: 6 group: 3 kernel_size: 3 stride: 2 pad: 1 }", IMAGE),
    case("Dropout", "dropout_param { dropout_ratio: 0.4 }", real(2, 3, 5)),
    case("ELU", "elu_param { alpha: 0.7 }", real(2, 3, 5)),
    case("Eltwise", "eltwise_param { coeff: 2 coeff: -1 coeff: 0.5 }",
         real(2, 3), real(2, 3), real(2, 3)),
    case("Eltwise", "eltwise_param { operation: PROD }", real(2, 3), real(2, 3), real(2, 3)),
    case("Eltwise", "eltwise_param { operation: MAX }", real(2, 3), real(2, 3), real(2, 3)),
    case("Embed", "embed_param { num_output: 4 input_dim: 5 }", given([3, 0, 3], [4, 1, 3])),
    case("EuclideanLoss", "", real(2, 3, 5), real(2, 3, 5)),
    case("Exp", "exp_param { base: 3 scale: 0.5 shift: -1.25 }", real(2, 3, 5)),
    case("Filter", "", real(4, 3), real(4, 2, 5), given(0, 1, 0, 1), tops=2),
    case("Flatten", "flatten_param { axis: 1 end_axis: 2 }", IMAGE),
    case("HingeLoss", "", real(3, 5), given(4, 0, 2)),
    case("HingeLoss", "hinge_loss_param { norm: L2 }", real(3, 5), given(4, 0, 2)),
    case("Im2col", "convolution_param { kernel_size: 3 stride: 2 pad: 1 }", IMAGE),
    case("InfogainLoss", "loss_param { ignore_label: 1 }",
         real(4, 3), given(2, 0, 1, 2), given([3, 1, 2], [0, 2, 1], [1, 0, 4]), tops=2),
    case("InnerProduct", "inner_product_param { num_output: 4 }", real(2, 3, 5)),
    case("InnerProduct", "inner_product_param { num_output: 4 transpose: true axis: 2 }",
         real(2, 3, 5)),
    case("LRN", "lrn_param { local_size: 3 alpha: 2 k: 1.5 }", IMAGE),
    case("LRN", "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 2 }", IMAGE),
    case("LSTM", "recurrent_param { num_output: 5 }", real(3, 2, 4), CONT),
    case("LSTM", "recurrent_param { num_output: 1 }", real(3, 2, 4), CONT, real(2, 5)),
    case("LSTMUnit", "", real(1, 2, 3), real(1, 2, 12), given([0, 1]), tops=2),
    case("Log", "log_param { base: 2 scale: 0.5 shift: 1.5 }", POSITIVE),
    case("MVN", "", IMAGE),
    case("MVN", "mvn_param { normalize_variance: false across_channels: true }", IMAGE),
    case("MultinomialLogisticLoss", "", real(3, 5, low=0.1, high=0.9), given(4, 0, 2)),
    case("PReLU", "", IMAGE),
    case("PReLU", "prelu_param { channel_shared: true }", IMAGE),
    case("Parameter", "parameter_param { shape { dim: 2 dim: 3 } }"),
    case("Pooling", "pooling_param { kernel_size: 3 stride: 2 pad: 1 }", IMAGE, tops=2),
    case("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }", IMAGE),
    case("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }",
         real(2, 3, 6, 4, low=0.5)),
    case("Power", "power_param { power: 1.7 scale: 0.6 shift: 0.9 }", POSITIVE),
    case("Power", "power_param { power: 3 }", real(2, 3, 5)),
    case("RNN", "recurrent_param { num_output: 5 }", real(3, 2, 4), CONT),
    case("RNN", "recurrent_param { num_output: 1 }", real(3, 2, 4), CONT, real(2, 5)),
    case("ReLU", "relu_param { negative_slope: 0.3 }", real(2, 3, 5)),
    *(
        case("Reduction", f"reduction_param {{ operation: {name} axis: 1 coeff: 3 }}",
             real(2, 3, 5))
        for name in ("SUM", "ASUM", "SUMSQ", "MEAN")
    ),
    case("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 6 } }", IMAGE),
    case("SPP", "spp_param { pyramid_height: 2 }", IMAGE),
    case("SPP", "spp_param { pyramid_height: 2 pool: AVE }", IMAGE),
    case("SPP", "spp_param { pyramid_height: 2 pool: STOCHASTIC }", real(2, 3, 6, 4, low=0.5)),
    case("Scale", "scale_param { bias_term: true }", IMAGE),
    case("Scale", "scale_param { axis: 0 }", IMAGE, real(2, 3)),
    case("Sigmoid", "", real(2, 3, 5)),
    case("SigmoidCrossEntropyLoss", "", real(2, 3), given([0, 1, 0.3], [1, 0.6, 0])),
    case("Slice", "slice_param { slice_point: 2 axis: 2 }", real(2, 3, 5), tops=2),
    case("Softmax", "", real(2, 3, 5)),
    case("SoftmaxWithLoss", "loss_param { ignore_label: 1 }",
         real(2, 3, 4), given([0, 1, 2, 0], [2, 2, 1, 0]), tops=2),
    case("Split", "", real(2, 3, 5), tops=2),
    case("Swish", "swish_param { beta: 1.7 }", real(2, 3, 5)),
    case("TanH", "", real(2, 3, 5)),
    case("Tile", "tile_param { tiles: 4 }", real(2, 3, 5)),
]  # fmt: skip

WITHOUT_GRADIENT = {
    "Accuracy": "counts",
    "ArgMax": "gives places; the values of out_max_val are results, not for learning",
    "DummyData": "has no bottom and no blob",
    "HDF5Output": "has no top",
    "Python": "has the gradient that its user writes",
    "Silence": "has no top",
    "Threshold": "steps from 0 to 1",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.type)
def test_gradient_is_the_derivative(case: Case) -> None:
    generator = torch.Generator().manual_seed(7)
    bottoms = [bottom(generator) for bottom in case.bottoms]
    net = case.build(bottoms)
    learned = [parameter for parameter in net.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.data.uniform_(-1, 1, generator=generator)

    def tops(*differentiable: Tensor) -> tuple[Tensor, ...]:
        del differentiable  # the bottoms and parameters below, which gradcheck changes in place
        net.random.generator().manual_seed(5)
        net({f"b{i}": bottom for i, bottom in enumerate(bottoms)})
        return tuple(net.blobs[f"t{i}"] for i in range(case.tops))

    assert all(top.dtype == torch.float64 for top in tops())
    assert gradcheck(tops, [bottom for bottom in bottoms if bottom.requires_grad] + learned)


def test_every_layer_type_is_checked_or_has_no_gradient() -> None:
    fed = {name for name in layer_types() if layer_class(name).is_fed}
    checked = {case.type for case in CASES}
    assert checked | fed | WITHOUT_GRADIENT.keys() == set(layer_types())
    assert not checked & WITHOUT_GRADIENT.keys()


@pytest.mark.parametrize(
    "case",
    [
        case("Accuracy", "", real(2, 3), given(0, 2)),
        case("ArgMax", "argmax_param { out_max_val: true }", real(2, 3)),
        case("Threshold", "", real(2, 3)),
    ],
    ids=lambda case: case.type,
)
def test_no_gradient_passes_through_the_others(case: Case) -> None:
    generator = torch.Generator().manual_seed(7)
    bottoms = [bottom(generator) for bottom in case.bottoms]
    outputs = case.build(bottoms)({f"b{i}": bottom for i, bottom in enumerate(bottoms)})
    assert not outputs["t0"].requires_grad
