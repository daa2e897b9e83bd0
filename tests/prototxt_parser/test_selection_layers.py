"""Layers that select by index or mask, where Caffe aborts or reads other memory; Parameter."""

from __future__ import annotations

import pytest
import torch

from prototxt_parser import Net, PrototxtError, build_net
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text

INPUT = (
    'layer { name: "in" type: "Input" top: "x" top: "i" '
    "input_param { shape { dim: 4 dim: 3 } shape { dim: %d } } } "
)


def net_from(text: str) -> Net:
    param = parse_text("force_backward: true " + text, caffe_pb2.NetParameter(), "test.prototxt")
    net = build_net(param, "TRAIN", seed=3)
    net.keeps_diffs = True
    return net


def test_a_filter_that_selects_nothing_gives_a_zero_gradient() -> None:
    net = net_from(
        INPUT % 4 + 'layer { name: "f" type: "Filter" bottom: "x" bottom: "i" top: "y" } '
        'layer { name: "l" type: "InnerProduct" bottom: "y" top: "z" loss_weight: 1 '
        'inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }'
    )
    tops = net({"x": torch.rand(4, 3), "i": torch.zeros(4)})
    net.backward()
    assert tops["z"].shape == (0, 2)
    assert torch.equal(net.diff("x"), torch.zeros(4, 3))
    assert torch.equal(net.flat.grad, torch.zeros(8))


def test_no_index_gives_an_empty_batch() -> None:
    text = 'layer { name: "b" type: "BatchReindex" bottom: "x" bottom: "i" top: "y" }'
    net = net_from(INPUT % 0 + text)
    assert net({"x": torch.rand(4, 3), "i": torch.zeros(0)})["y"].shape == (0, 3)


@pytest.mark.parametrize("index", [-1.0, 4.0, float("nan")])
@pytest.mark.parametrize(
    ("layer", "end"),
    [
        ('type: "BatchReindex" bottom: "x" bottom: "i"', "batch size 4"),
        ('type: "Embed" bottom: "i" embed_param { num_output: 2 input_dim: 4 }', "input_dim 4"),
    ],
)
def test_an_index_outside_is_refused(layer: str, end: str, index: float) -> None:
    net = net_from(INPUT % 2 + f'layer {{ name: "b" top: "y" {layer} }}')
    with pytest.raises(PrototxtError, match=rf'layer "b" .*at least 0 and below {end}; received'):
        net({"x": torch.rand(4, 3), "i": torch.tensor([1.0, index])})


def test_the_integer_part_of_an_index_counts() -> None:
    text = 'layer { name: "b" type: "BatchReindex" bottom: "x" bottom: "i" top: "y" }'
    net = net_from(INPUT % 2 + text)
    x = torch.rand(4, 3)
    y = net({"x": x, "i": torch.tensor([2.9, -0.9])})["y"]
    assert torch.equal(y, x[[2, 0]])


def test_the_gradient_of_a_parameter_layer_is_the_last_passes() -> None:
    net = net_from(
        'layer { name: "p" type: "Parameter" top: "v" parameter_param { shape { dim: 3 } } } '
        'layer { name: "s" type: "Softmax" bottom: "v" top: "y" softmax_param { axis: 0 } }'
    )
    for _ in range(2):
        net()
        net.backward({"y": torch.tensor([1.0, 0.0, 0.0])})
    torch.testing.assert_close(net.flat.grad, torch.tensor([2.0, -1.0, -1.0]) / 9)


def test_a_blob_of_a_parameter_layer_may_be_shared() -> None:
    net = net_from(
        INPUT % 4 + 'layer { name: "p" type: "Parameter" top: "v" param { name: "w" } '
        "parameter_param { shape { dim: 3 } } } "
        'layer { name: "s" type: "Scale" bottom: "x" top: "y" param { name: "w" } }'
    )
    with torch.no_grad():
        net.flat.data.copy_(torch.tensor([2.0, 3.0, 5.0]))
    tops = net({"x": torch.ones(4, 3), "i": torch.zeros(4)})
    assert torch.equal(tops["v"], torch.tensor([2.0, 3.0, 5.0]))
    assert torch.equal(tops["y"][1], torch.tensor([2.0, 3.0, 5.0]))
