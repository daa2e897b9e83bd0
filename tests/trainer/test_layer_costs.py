"""Products and operations of every kind of layer, counted by hand."""

import pytest

from prototxt_parser import build_net
from prototxt_parser.layers.registry import layer_class, layer_types
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text
from trainer.layer_costs import COUNTED_TYPES, Cost
from trainer.summary import summarize


def cost_of(layer: str, *shapes: tuple[int, ...], phase: str = "TEST") -> Cost | None:
    """Return the cost of a layer over inputs of these shapes."""
    inputs = "".join(
        f'layer {{ name: "in{i}" type: "Input" top: "in{i}" input_param {{ shape {{ '
        f"{' '.join(f'dim: {size}' for size in shape)} }} }} }} "
        for i, shape in enumerate(shapes)
    )
    bottoms = " ".join(f'bottom: "in{i}"' for i in range(len(shapes)))
    text = f'{inputs} layer {{ name: "it" {bottoms} {layer} }}'
    net = parse_text(text, caffe_pb2.NetParameter(), "net")
    return summarize(build_net(net, phase)).layers[-1].cost


CONVOLUTION = (
    'type: "Convolution" top: "t" convolution_param '
    "{ num_output: 6 kernel_h: 3 kernel_w: 2 group: 2 bias_term: %s }"
)


@pytest.mark.parametrize(
    ("layer", "shapes", "want"),
    [
        # 5 · 6 · 9 · 12 values of 2 · 3 · 2 products
        (CONVOLUTION % "true", [(5, 4, 11, 13)], Cost(3240 * 12, 3240 * 2 - 3240)),
        (CONVOLUTION % "false", [(5, 4, 11, 13)], Cost(3240 * 12, 0)),
        (
            'type: "Deconvolution" top: "t" convolution_param '
            "{ num_output: 6 kernel_size: 3 stride: 2 group: 2 bias_term: false }",
            [(5, 4, 7, 8)],
            Cost(5 * 4 * 7 * 8 * 3 * 9, 0),
        ),
        (
            'type: "InnerProduct" top: "t" inner_product_param { num_output: 7 axis: 2 }',
            [(2, 3, 4, 5)],
            Cost(2 * 3 * 7 * 20, 2 * 3 * 7),
        ),
        (
            'type: "Pooling" top: "t" pooling_param { kernel_size: 3 stride: 2 }',
            [(2, 3, 9, 11)],
            Cost(0, 2 * 3 * 4 * 5 * 9),
        ),
        (
            'type: "Pooling" top: "t" pooling_param { pool: AVE global_pooling: true }',
            [(2, 3, 9, 11)],
            Cost(0, 2 * 3 * 99),
        ),
        ('type: "LRN" top: "t" lrn_param { local_size: 3 }', [(2, 5, 4, 7)], Cost(0, 280 * 8)),
        (
            'type: "LRN" top: "t" lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }',
            [(2, 5, 4, 7)],
            Cost(0, 280 * 14),
        ),
        ('type: "Eltwise" top: "t"', [(3, 5)] * 3, Cost(0, 30)),
        (
            'type: "Eltwise" top: "t" eltwise_param { coeff: 1 coeff: -1 }',
            [(3, 5)] * 2,
            Cost(0, 15 * 3),
        ),
        ('type: "BatchNorm" top: "t"', [(2, 3, 5)], Cost(0, 60)),
        ('type: "Scale" top: "t" scale_param { bias_term: true }', [(2, 3, 5)], Cost(0, 60)),
        (
            'type: "MVN" top: "t" mvn_param { normalize_variance: false }',
            [(2, 3, 5, 7)],
            Cost(0, 420),
        ),
        (
            'type: "Reduction" top: "t" reduction_param { operation: SUMSQ }',
            [(2, 3, 5)],
            Cost(0, 60),
        ),
        ('type: "Dropout" top: "t"', [(2, 3)], Cost()),
        ('type: "Softmax" top: "t"', [(2, 3)], Cost(0, 30)),
        ('type: "Concat" top: "t"', [(2, 3), (2, 5)], Cost()),
        ('type: "Embed" top: "t" embed_param { num_output: 4 input_dim: 9 }', [(3,)], Cost(0, 12)),
        ('type: "SPP" top: "t" spp_param { pyramid_height: 2 }', [(2, 3, 5, 7)], Cost(0, 420)),
        # T 3, N 2, D 5, H 4: gates of 16, each (5 + 4) products and a bias
        (
            'type: "LSTM" top: "t" recurrent_param { num_output: 4 }',
            [(3, 2, 5), (3, 2)],
            Cost(6 * 16 * 9, 6 * 16 + 6 * 4 * 9),
        ),
        # W_static of 3 inputs is used once per stream; W_o and b_o make the output
        (
            'type: "RNN" top: "t" recurrent_param { num_output: 4 }',
            [(3, 2, 5), (3, 2), (2, 3)],
            Cost(6 * 4 * (5 + 4 + 4) + 2 * 4 * 3, 6 * (4 + 4) + 6 * 4 * 2),
        ),
    ],
)
def test_costs_by_hand(layer: str, shapes: list[tuple[int, ...]], want: Cost) -> None:
    assert cost_of(layer, *shapes) == want


def test_costs_that_depend_on_the_phase() -> None:
    assert cost_of('type: "Dropout" top: "t"', (2, 3), phase="TRAIN") == Cost(0, 12)
    assert cost_of('type: "BatchNorm" top: "t"', (2, 3, 5), phase="TRAIN") == Cost(0, 150)


def test_a_multiply_add_is_two_flops() -> None:
    assert Cost(3, 5).flops == 11


def test_every_type_of_caffe_is_counted() -> None:
    own = {kind for kind in layer_types() if layer_class(kind).__module__.startswith("prototxt_")}
    assert own - COUNTED_TYPES == {"Python"}
