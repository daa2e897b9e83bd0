"""OpenCV reads the weights that we write, and computes what we compute."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from google.protobuf import text_format

from prototxt_parser import build_net, read_net, save_weights
from prototxt_parser.net import Net, Step
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text

TOLERANCE = 1e-4  # of the largest value of a blob

# Shipped nets, and the shape of their input where theirs is larger than need be.
SHIPPED = {
    "cifar10_full_deploy": None,
    "cifar10_full_sigmoid_bn_deploy": None,
    "cifar10_quick_deploy": None,
    "googlenet_deploy": (1, 3, 224, 224),
    "inception_v3_deploy": (1, 3, 107, 107),
    "lenet_deploy": (3, 1, 28, 28),
    "mnist_siamese_deploy": (3, 1, 28, 28),
    "resnet50_deploy": (2, 3, 67, 67),
}

SCALED = 'type: "Scale" scale_param { bias_term: true }'
MIXED = f"""
name: "mixed"
layer {{ name: "data" type: "Input" top: "data"
  input_param {{ shape {{ dim: 2 dim: 6 dim: 13 dim: 11 }} }} }}
layer {{ name: "slice" type: "Slice" bottom: "data" top: "front" top: "back"
  slice_param {{ axis: 1 slice_point: 4 }} }}
layer {{ name: "grouped" type: "Convolution" bottom: "front" top: "grouped"
  convolution_param {{ num_output: 8 kernel_size: 3 group: 2 pad: 1 }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "grouped" top: "grouped" }}
layer {{ name: "scale" bottom: "grouped" top: "grouped" {SCALED} }}
layer {{ name: "prelu" type: "PReLU" bottom: "grouped" top: "prelu" }}
layer {{ name: "dilated" type: "Convolution" bottom: "back" top: "dilated"
  convolution_param {{ num_output: 8 kernel_h: 3 kernel_w: 5 pad_h: 2 pad_w: 4 dilation: 2 }} }}
layer {{ name: "elu" type: "ELU" bottom: "dilated" top: "dilated" }}
layer {{ name: "sum" type: "Eltwise" bottom: "prelu" bottom: "dilated" top: "sum"
  eltwise_param {{ coeff: 0.5 coeff: -1.5 }} }}
layer {{ name: "lrn" type: "LRN" bottom: "sum" top: "lrn"
  lrn_param {{ local_size: 3 alpha: 0.3 beta: 0.6 }} }}
layer {{ name: "maximum" type: "Eltwise" bottom: "sum" bottom: "lrn" top: "maximum"
  eltwise_param {{ operation: MAX }} }}
layer {{ name: "join" type: "Concat" bottom: "lrn" bottom: "maximum" bottom: "data" top: "join" }}
layer {{ name: "average" type: "Pooling" bottom: "join" top: "average"
  pooling_param {{ pool: AVE kernel_size: 3 stride: 2 pad: 1 }} }}
layer {{ name: "shrunk" type: "Convolution" bottom: "average" top: "shrunk"
  convolution_param {{ num_output: 5 kernel_size: 2 stride: 2 bias_term: false }} }}
layer {{ name: "leaky" type: "ReLU" bottom: "shrunk" top: "shrunk"
  relu_param {{ negative_slope: 0.2 }} }}
layer {{ name: "grown" type: "Deconvolution" bottom: "shrunk" top: "grown"
  convolution_param {{ num_output: 7 kernel_size: 4 stride: 2 pad: 1 }} }}
layer {{ name: "power" type: "Power" bottom: "grown" top: "power"
  power_param {{ power: 2 scale: 0.7 shift: 0.1 }} }}
layer {{ name: "tanh" type: "TanH" bottom: "power" top: "power" }}
layer {{ name: "largest" type: "Pooling" bottom: "power" top: "largest"
  pooling_param {{ pool: MAX kernel_size: 3 stride: 2 }} }}
layer {{ name: "score" type: "InnerProduct" bottom: "largest" top: "score"
  inner_product_param {{ num_output: 9 }} }}
layer {{ name: "prob" type: "Softmax" bottom: "score" top: "prob" }}
"""


def fill(net: Net) -> None:
    """Give every blob values for which activations keep their size and variances are positive."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for step in net.steps:
            for blob in step.layer.blobs:
                if blob.dim() > 1:
                    fan_in = blob.numel() / blob.shape[0]
                    blob.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
                elif step.param.type in ("BatchNorm", "Scale", "PReLU"):
                    blob.uniform_(0.5, 1.5, generator=generator)
                else:
                    blob.uniform_(-0.2, 0.2, generator=generator)


def definition(name: str) -> caffe_pb2.NetParameter:
    """Return a net of this file or a shipped one, with the input that is tested."""
    if name == "mixed":
        return parse_text(MIXED, caffe_pb2.NetParameter(), name)
    param = read_net(f"{name}.prototxt").param
    if shape := SHIPPED[name]:
        del param.layer[0].input_param.shape[0].dim[:]
        param.layer[0].input_param.shape[0].dim.extend(shape)
    return param


def saved(name: str, folder: Path) -> tuple[Net, Path, Path]:
    """Return a net with values in all blobs, and the two files that describe it."""
    param = definition(name)
    net = build_net(param, "TEST", seed=1)
    fill(net)
    text, weights = folder / "deploy.prototxt", folder / "net.caffemodel"
    text.write_text(text_format.MessageToString(param))
    save_weights(net, weights)
    return net, text, weights


def last_writers(net: Net) -> dict[str, str]:
    """Return by layer the blob that it is the last to write: all that is left of blobs in place."""
    writers = {step.param.top[0]: step.param.name for step in net.steps if step.param.top}
    return {layer: blob for blob, layer in writers.items()}


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape as a reader sees it that makes matrices of vectors."""
    return tuple(size for size in shape if size != 1)


@pytest.mark.parametrize("name", ["mixed", *SHIPPED])
def test_opencv_computes_what_we_compute(name: str, tmp_path: Path) -> None:
    net, text, weights = saved(name, tmp_path)
    cv2.setNumThreads(1)
    reader = cv2.dnn.readNetFromCaffe(str(text), str(weights))
    reader.enableFusion(False)
    images = torch.randn(net.blob_shapes["data"], generator=torch.Generator().manual_seed(2))
    net({"data": images})
    reader.setInput(images.numpy(), "data")
    blobs = last_writers(net)
    theirs = [layer for layer in reader.getLayerNames() if layer in blobs]
    computing = {s.param.name for s in net.steps if s.param.type not in ("Input", "Split")}
    assert set(reader.getLayerNames()) == computing
    for layer, value in zip(theirs, reader.forward(theirs), strict=True):
        ours = net.blobs[blobs[layer]].detach().numpy()
        assert value.shape == ours.shape, layer
        limit = TOLERANCE * np.abs(ours).max()
        np.testing.assert_allclose(value, ours, rtol=0, atol=limit, err_msg=layer)


@pytest.mark.parametrize("name", ["mixed", *SHIPPED])
def test_opencv_finds_the_values_that_we_wrote(name: str, tmp_path: Path) -> None:
    net, text, weights = saved(name, tmp_path)
    reader = cv2.dnn.readNetFromCaffe(str(text), str(weights))
    compared = 0
    for step in net.steps:
        if not step.layer.blobs:
            continue
        theirs = reader.getLayer(step.param.name).blobs
        assert len(theirs) == len(step.layer.blobs)
        for blob, value in zip(step.layer.blobs, theirs, strict=True):
            assert without_ones(value.shape) == without_ones(tuple(blob.shape))
            np.testing.assert_array_equal(value.reshape(-1), blob.detach().numpy().reshape(-1))
            compared += blob.numel()
    assert compared == net.flat.data.numel()


def check_layer(saved_layer: caffe_pb2.LayerParameter, step: Step) -> None:
    """Compare what a file holds of one layer with the layer."""
    assert (saved_layer.name, saved_layer.type) == (step.param.name, step.param.type)
    assert list(saved_layer.bottom) == list(step.param.bottom)
    assert list(saved_layer.top) == list(step.param.top)
    assert len(saved_layer.blobs) == len(step.layer.blobs)
    for theirs, ours in zip(saved_layer.blobs, step.layer.blobs, strict=True):
        assert [field.name for field, _ in theirs.ListFields()] == ["data", "shape"]
        assert tuple(theirs.shape.dim) == tuple(ours.shape)
        payload = np.asarray(theirs.data, dtype="<f4").tobytes()
        assert payload == ours.detach().numpy().tobytes()


@pytest.mark.parametrize("name", ["mixed", "lenet_deploy", "cifar10_full_sigmoid_bn_deploy"])
def test_a_reader_of_caffes_schema_gets_the_same_blobs_names_and_order(
    name: str, tmp_path: Path
) -> None:
    net, _, weights = saved(name, tmp_path)
    model = caffe_pb2.NetParameter.FromString(weights.read_bytes())
    assert model.name == net.name
    assert [field.name for field, _ in model.ListFields()] == ["name", "layer"]
    for layer, step in zip(model.layer, net.steps, strict=True):
        check_layer(layer, step)
