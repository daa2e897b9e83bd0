"""Convolutions where PyTorch has no kernel, against loops over every product."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from prototxt_parser import Net, PrototxtError, build_net
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text

# Spatial sizes, then convolution_param.
CASES = {
    "no spatial axis": ((), "group: 2"),
    "one axis, stride": ((7,), "kernel_size: 3 stride: 2 pad: 1 group: 2"),
    "wider than padded": ((3,), "kernel_size: 4 stride: 3"),
    "wider on one axis": ((5, 3), "kernel_size: 2 kernel_size: 7 stride: 4 pad: 1 dilation: 1"),
    "two axes, pad above kernel": ((4, 3), "kernel_size: 2 pad: 3 pad: 2 stride: 2"),
    "three axes": ((4, 3, 5), "kernel_size: 2 dilation: 1 dilation: 2 dilation: 3"),
    "four axes": ((3, 4, 2, 5), "kernel_size: 2 stride: 1 stride: 2 stride: 3 stride: 2 pad: 1"),
    "four axes, groups": ((2, 3, 4, 1), "kernel_size: 1 kernel_size: 2 kernel_size: 3 "
                                        "kernel_size: 1 group: 2 dilation: 1"),
}  # fmt: skip


def net_of(layer_type: str, spatial: tuple[int, ...], settings: str) -> Net:
    dims = " ".join(f"dim: {size}" for size in (2, 4, *spatial))
    text = (
        f'force_backward: true layer {{ name: "in" type: "Input" top: "x" '
        f'input_param {{ shape {{ {dims} }} }} }} layer {{ name: "c" type: "{layer_type}" '
        f'bottom: "x" top: "y" convolution_param {{ {settings} num_output: 6 '
        'weight_filler { type: "gaussian" } bias_filler { type: "gaussian" } } }'
    )
    net = parse_text(text, caffe_pb2.NetParameter(), "test.prototxt")
    return build_net(net, "TRAIN", seed=5, dtype=torch.float64)


def connections(net: Net, small: tuple[int, ...], large: tuple[int, ...]) -> list[tuple]:
    """Pairs of places that a kernel value connects: (of the windows, of the image, of the kernel).

    The rule itself: window o sees the image at o · stride - pad + k · dilation.
    """
    g = net.layers["c"].geometry
    found = []
    for o in np.ndindex(*small):
        for k in np.ndindex(*g.kernel):
            at = tuple(
                o[i] * g.stride[i] - g.pad[i] + k[i] * g.dilation[i] for i in range(len(small))
            )
            if all(0 <= place < size for place, size in zip(at, large, strict=True)):
                found.append((o, at, k))
    return found


@pytest.mark.parametrize("name", CASES)
def test_convolution_is_the_sum_over_its_windows(name: str) -> None:
    spatial, settings = CASES[name]
    net = net_of("Convolution", spatial, settings)
    weight, bias = (blob.detach().numpy() for blob in net.layers["c"].blobs)
    x = np.random.default_rng(3).normal(size=(2, 4, *spatial))
    sizes = net.blob_shapes["y"][2:]
    expected = np.zeros((2, 6, *sizes)) + bias.reshape(-1, *[1] * len(sizes))
    outputs, inputs = 6 // net.layers["c"].group, 4 // net.layers["c"].group
    for o, at, k in connections(net, sizes, spatial):
        for n, c in np.ndindex(2, 6):
            seen = slice(c // outputs * inputs, (c // outputs + 1) * inputs)
            expected[(n, c, *o)] += x[(n, seen, *at)] @ weight[(c, slice(None), *k)]
    got = net({"x": torch.from_numpy(x)})["y"].detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in CASES if "pad above" not in name])
def test_deconvolution_scatters_its_windows(name: str) -> None:
    spatial, settings = CASES[name]
    net = net_of("Deconvolution", spatial, settings)
    weight, bias = (blob.detach().numpy() for blob in net.layers["c"].blobs)
    x = np.random.default_rng(3).normal(size=(2, 4, *spatial))
    sizes = net.blob_shapes["y"][2:]
    expected = np.zeros((2, 6, *sizes)) + bias.reshape(-1, *[1] * len(sizes))
    outputs, inputs = 6 // net.layers["c"].group, 4 // net.layers["c"].group
    for at, o, k in connections(net, spatial, sizes):
        for n, c in np.ndindex(2, 4):
            written = slice(c // inputs * outputs, (c // inputs + 1) * outputs)
            expected[(n, written, *o)] += x[(n, c, *at)] * weight[(c, slice(None), *k)]
    got = net({"x": torch.from_numpy(x)})["y"].detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer_type", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("name", ["no spatial axis", "wider than padded", "four axes, groups"])
def test_gradients_are_those_of_the_function(layer_type: str, name: str) -> None:
    net = net_of(layer_type, *CASES[name])
    layer = net.layers["c"]
    x = torch.randn(2, 4, *CASES[name][0], dtype=torch.float64, requires_grad=True)
    values = tuple(blob.detach().clone().requires_grad_() for blob in layer.blobs)

    def run(x: torch.Tensor, *blobs: torch.Tensor) -> torch.Tensor:
        named = dict(zip(layer.blob_names, blobs, strict=True))
        return torch.func.functional_call(layer, named, (x,))

    assert torch.autograd.gradcheck(run, (x, *values))


def test_im2col_over_four_axes_holds_every_window() -> None:
    spatial, settings = CASES["four axes"]
    net = net_of("Im2col", spatial, settings)
    x = torch.randn(2, 4, *spatial, dtype=torch.float64)
    y = net({"x": x})["y"]
    windows = math.prod(net.blob_shapes["y"][2:])
    columns = torch.zeros(2, 4, *[2] * 4, *net.blob_shapes["y"][2:], dtype=torch.float64)
    for o, at, k in connections(net, net.blob_shapes["y"][2:], spatial):
        columns[(slice(None), slice(None), *k, *o)] = x[(slice(None), slice(None), *at)]
    assert y.shape == (2, 64, *net.blob_shapes["y"][2:])
    assert torch.equal(y.reshape(2, 64, windows), columns.reshape(2, 64, windows))


@pytest.mark.parametrize("layer_type", ["Convolution", "Deconvolution", "Im2col"])
@pytest.mark.parametrize("name", ["one axis, stride", "four axes"])
def test_an_empty_batch_gives_an_empty_top(layer_type: str, name: str) -> None:
    spatial, settings = CASES[name]
    net = net_of(layer_type, spatial, settings)
    y = net({"x": torch.zeros(0, 4, *spatial)})["y"]
    assert y.shape == (0, *net.blob_shapes["y"][1:])


def test_padding_that_leaves_nothing_of_a_deconvolution_is_refused() -> None:
    with pytest.raises(PrototxtError, match=r"pad \(2, 2\) leaves nothing of the top of bottom"):
        net_of("Deconvolution", (3, 2), "kernel_size: 2 pad: 2")


def test_a_bottom_with_other_axes_is_refused() -> None:
    net = net_of("Convolution", (5, 7), "kernel_size: 2")
    with pytest.raises(PrototxtError, match="then 2 spatial axes; received"):
        net({"x": torch.zeros(2, 4, 5)})
