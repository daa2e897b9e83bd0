"""The examples for the Python interface do what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from prototxt_parser import PrototxtError, build_net, read_net
from prototxt_parser.definition import NetDefinition
from prototxt_parser.layers.python import allow_python_layers
from prototxt_parser.proto import caffe_pb2

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "pycaffe"


@pytest.fixture(autouse=True)
def examples_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def with_caffes_loss(definition: NetDefinition) -> caffe_pb2.NetParameter:
    """Return the net with EuclideanLoss for the loss written in Python."""
    net = caffe_pb2.NetParameter()
    net.CopyFrom(definition.param)
    net.layer[-1].type = "EuclideanLoss"
    net.layer[-1].ClearField("python_param")
    return net


def test_linear_regression_needs_leave_to_run_code() -> None:
    sys.modules.pop("pyloss", None)
    with pytest.raises(PrototxtError, match="allow-python-layer pyloss"):
        build_net(read_net("linreg.prototxt"), "TRAIN", seed=1)
    assert "pyloss" not in sys.modules


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("weight", [1, -2.5])
def test_a_loss_written_in_python_equals_caffes(phase: str, weight: float) -> None:
    allow_python_layers("pyloss")
    definition = read_net("linreg.prototxt")
    definition.param.layer[-1].loss_weight[0] = weight
    ours = build_net(definition, phase, seed=1)
    theirs = build_net(with_caffes_loss(definition), phase, seed=1)
    assert ours.flat.data.numel() == 2 * (6 * 10 + 10)
    for net in (ours, theirs):
        net({})
        net.backward()
    assert ours.blob_shapes["loss"] == (1,)
    torch.testing.assert_close(ours.loss, theirs.loss)
    torch.testing.assert_close(ours.flat.grad, theirs.flat.grad)
    assert float(theirs.flat.grad.abs().max()) > 0


def test_a_loss_written_in_python_checks_its_bottoms() -> None:
    allow_python_layers("pyloss")
    definition = read_net("linreg.prototxt")
    definition.param.layer[3].inner_product_param.num_output = 9
    with pytest.raises(PrototxtError, match="expected bottoms of one size; 100, 90"):
        build_net(definition, "TRAIN", seed=1)


def test_caffenet_in_python_is_caffenet() -> None:
    from caffenet import caffenet

    made = caffenet("train_lmdb", batch_size=7, with_accuracy=True).to_proto()
    shipped = [
        layer
        for layer in read_net("caffenet.prototxt").param.layer
        if not (layer.type == "Data" and layer.include[0].phase == caffe_pb2.TEST)
    ]
    for ours, theirs in zip(made.layer, shipped, strict=True):
        for field in ("name", "type", "bottom", "top", "lrn_param", "pooling_param"):
            assert getattr(ours, field) == getattr(theirs, field), ours.name
    shapes = {"data": (2, 3, 227, 227), "label": (2,)}
    net = build_net(made, "TRAIN", input_shapes=shapes, seed=1)
    assert net.flat.data.numel() == 60_965_224
    assert made.layer[0].data_param.batch_size == 7
    assert list(made.layer[0].transform_param.mean_value) == [104, 117, 123]
