"""Coordinates between tops, by hand and against the layers' own shapes."""

from typing import Any

import numpy as np
import pytest
import torch

from prototxt_parser import build_net
from pycaffe import coord_map as maps
from pycaffe.coord_map import AxisMismatchException, UndefinedMapException, coord_map_from_to, crop
from pycaffe.net_spec import NetSpec
from pycaffe.net_spec import layers as L
from pycaffe.net_spec import params as P


def hourglass(kernel: Any = 3, stride: Any = 1, pad: Any = 0) -> NetSpec:
    """A convolution, a pooling, and the deconvolution that undoes the pooling's stride."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [2, 1, 100, 90]})
    n.aux = L.Input(shape={"dim": [2, 1, 20, 30]})
    n.conv = L.Convolution(n.data, num_output=10, kernel_size=kernel, stride=stride, pad=pad)
    n.pool = L.Pooling(n.conv, pool=P.Pooling.MAX, kernel_size=2, stride=2, pad=0)
    settings = {"num_output": 10, "kernel_size": 4, "stride": 2, "pad": 0}
    n.deconv = L.Deconvolution(n.pool, convolution_param=settings)
    return n


@pytest.mark.parametrize(
    ("layer", "want"),
    [
        (L.Convolution(kernel_size=5, stride=2, pad=1), (1, 1 / 2, -1 / 2)),
        (L.Convolution(convolution_param={"kernel_size": 3, "dilation": 4}), (1, 1, -4)),
        (L.Pooling(pooling_param={"kernel_size": 4, "stride": 4}), (1, 1 / 4, -3 / 8)),
        (L.Im2col(convolution_param={"kernel_size": 3, "axis": 2}), (2, 1, -1)),
        (L.Deconvolution(kernel_size=4, stride=2, pad=1), (1, 2, 1 / 2)),
        (L.BatchNorm(), (None, 1, 0)),
        (L.Crop(axis=3, offset=7), (2, 1, -7)),
        (L.Crop(), (1, 1, 0)),
    ],
)
def test_the_map_of_one_layer(layer: Any, want: tuple[Any, float, float]) -> None:
    assert maps.coord_map(layer.fn) == want


def test_the_map_says_where_a_response_lies() -> None:
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 1, 23]})
    n.conv = L.Convolution(
        n.data,
        num_output=1,
        kernel_size=[1, 3],
        dilation=[1, 2],
        pad=[0, 3],
        weight_filler={"type": "constant", "value": 1},
    )
    impulse = torch.zeros(1, 1, 1, 23)
    impulse[..., 8] = 1
    net = build_net(n.to_proto(), "TEST")
    response = net({"data": impulse})["conv"].detach().numpy()[0, 0, 0]
    middle = (response * np.arange(len(response))).sum() / response.sum()
    _, scale, shift = maps.coord_map(n.conv.fn)
    assert scale[-1] * 8 + shift[-1] == middle == 9


def test_maps_per_axis() -> None:
    n = hourglass([3, 5], [1, 2], [0, 10])
    axis, scale, shift = coord_map_from_to(n.deconv, n.data)
    # 2 · ((x - 1 - 0.5) / 2) + 1.5 = x, and 2 · ((x / 2 + 4 - 0.5) / 2) + 1.5 = x / 2 + 5
    assert axis == 1
    np.testing.assert_allclose(scale, [1, 2])
    np.testing.assert_allclose(shift, [0, -10])


def test_maps_in_three_dimensions() -> None:
    n = NetSpec()
    n.data = L.Input()
    n.conv = L.Convolution(n.data, kernel_size=[3, 3, 3], stride=[1, 1, 1], pad=[0, 1, 2])
    n.pool = L.Pooling(n.conv, kernel_size=2, stride=2)
    n.deconv = L.Deconvolution(n.pool, kernel_size=4, stride=2)
    axis, scale, shift = coord_map_from_to(n.deconv, n.data)
    assert axis == 1
    np.testing.assert_allclose(scale, [1, 1, 1])
    np.testing.assert_allclose(shift, [0, -1, -2])


def test_crop_of_crop() -> None:
    n = hourglass(pad=36)
    n.once = L.Crop(n.deconv, n.data, axis=2, offset=[5, 7])
    n.twice = L.Crop(n.once, n.aux, crop_param={"axis": 2, "offset": [3, 2]})
    _, scale, shift = coord_map_from_to(n.twice, n.deconv)
    np.testing.assert_allclose(scale, 1)
    np.testing.assert_allclose(shift, [8, 9])


def test_branches_meet_at_a_common_blob() -> None:
    n = hourglass(stride=2, pad=1)
    n.up = L.Deconvolution(n.deconv, kernel_size=4, stride=2, pad=1)
    n.relu = L.ReLU(n.data)
    n.sum = L.Eltwise(n.relu, n.data)
    axis, scale, shift = coord_map_from_to(n.up, n.sum)
    assert axis == 1
    np.testing.assert_allclose(scale, 1)
    np.testing.assert_allclose(shift, -2.5)


def test_crop_aligns_with_the_reference() -> None:
    n = hourglass(pad=36)
    n.score = crop(n.deconv, n.data)
    layer = n.to_proto().layer[-1]
    assert (layer.name, layer.type, list(layer.bottom)) == ("score", "Crop", ["deconv", "data"])
    assert (layer.crop_param.axis, list(layer.crop_param.offset)) == (2, [36])
    n.aux = L.Input(shape={"dim": [2, 1, 20, 30]})
    assert build_net(n.to_proto(), "TEST").blob_shapes["score"] == (2, 10, 100, 90)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride": 2, "pad": 1}, "scale mismatch on crop"),
        ({"kernel": 5, "pad": 0}, r"cannot crop negative offset \(b = \[1.\]\)"),
        ({"kernel": 4, "pad": 3}, r"cannot crop noninteger offset \(b = \[-2.5\]\)"),
    ],
)
def test_crops_that_do_not_fit_are_refused(settings: dict[str, int], message: str) -> None:
    n = hourglass(**settings)
    with pytest.raises(AssertionError, match=message):
        crop(n.deconv, n.data)


def test_unconnected_tops_are_refused() -> None:
    n = hourglass()
    n.ip = L.InnerProduct(n.deconv, num_output=10)
    for top in (n.ip, n.aux):
        with pytest.raises(RuntimeError, match="are they connected by spatial layers"):
            coord_map_from_to(top, n.data)


def test_axes_must_agree() -> None:
    n = NetSpec()
    n.conv = L.Convolution(L.Input(), kernel_size=3, axis=2)
    n.pool = L.Pooling(n.conv, kernel_size=3)
    with pytest.raises(AxisMismatchException, match="axis 1 and of axis 2"):
        coord_map_from_to(n.pool, n.conv.fn.inputs[0])
    with pytest.raises(AxisMismatchException, match="which axis"):
        crop(n.conv, n.conv)


def test_unmapped_types_and_windows_are_refused() -> None:
    with pytest.raises(UndefinedMapException, match="InnerProduct has no coordinate map"):
        maps.coord_map(L.InnerProduct().fn)
    with pytest.raises(UndefinedMapException, match="Pooling without kernel_size"):
        maps.coord_map(L.Pooling(global_pooling=True).fn)
    with pytest.raises(AssertionError, match=r"_h/_w params; received \['stride_w'\]"):
        maps.coord_map(L.Convolution(kernel_size=3, stride_w=2).fn)
