"""What is logged while a net is built, in Caffe's words and order."""

from __future__ import annotations

import logging

import pytest

from prototxt_parser import build_net
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text

NET = """name: "two"
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "first" type: "InnerProduct" bottom: "x" top: "y" param { name: "w" }
  inner_product_param { num_output: 3 } }
layer { name: "tanh" type: "TanH" bottom: "y" top: "y" }
layer { name: "second" type: "InnerProduct" bottom: "y" top: "z" param { name: "w" }
  inner_product_param { num_output: 3 } }
layer { name: "unused" type: "InnerProduct" bottom: "z" top: "u"
  inner_product_param { num_output: 2 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "z" bottom: "x" loss_weight: 0.5 }
"""


def lines_of(text: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.INFO):
        build_net(parse_text(text, caffe_pb2.NetParameter(), "net"), "TRAIN")
    return [record.getMessage() for record in caplog.records]


def test_every_layer_is_described_in_caffes_words(caplog: pytest.LogCaptureFixture) -> None:
    lines = lines_of(NET, caplog)
    assert lines[0].startswith('Initializing net from parameters: \nname: "two"\nstate {\n')
    assert "_split" not in lines[0]
    first = lines.index("Creating Layer first")
    assert lines[first - 1 : lines.index("Creating layer second")] == [
        "Creating layer first",
        "Creating Layer first",
        "first <- x_in_0_split_0",
        "first -> y",
        "Setting up first",
        "Top shape: 4 3 (12)",
        "Memory required for data: 192",
        "Creating layer tanh",
        "Creating Layer tanh",
        "tanh <- y",
        "tanh -> y (in-place)",
        "Setting up tanh",
        "Top shape: 4 3 (12)",
        "Memory required for data: 240",
    ]
    loss = lines.index("Setting up loss")
    assert lines[loss - 1 : loss + 4] == [
        "loss -> (automatic)",
        "Setting up loss",
        "Top shape: (1)",
        "    with loss weight 0.5",
        "Memory required for data: 420",
    ]
    assert "Sharing parameters 'w' owned by layer 'first', param index 0" in lines


def test_gradients_go_from_a_loss_to_what_learns(caplog: pytest.LogCaptureFixture) -> None:
    lines = lines_of(NET, caplog)
    start = lines.index("loss needs backward computation.")
    assert lines[start:] == [
        "loss needs backward computation.",
        "unused does not need backward computation.",
        "z_second_0_split needs backward computation.",
        "second needs backward computation.",
        "tanh needs backward computation.",
        "first needs backward computation.",
        "x_in_0_split does not need backward computation.",
        "in does not need backward computation.",
        "This network produces output u",
        "Network initialization done.",
    ]


@pytest.mark.parametrize(
    "change",
    [
        ('z" param', 'z" propagate_down: false param'),
        (
            'bottom: "z" bottom: "x"',
            'bottom: "z" bottom: "x" propagate_down: false propagate_down: false',
        ),
    ],
)
def test_propagate_down_ends_what_runs_backward(
    change: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    text = NET.replace(*change)
    assert text != NET
    lines = lines_of(text, caplog)
    assert "tanh does not need backward computation." in lines
    assert "first does not need backward computation." in lines


def test_nothing_is_formatted_below_info(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        build_net(parse_text(NET, caffe_pb2.NetParameter(), "net"), "TRAIN")
    assert caplog.records == []
