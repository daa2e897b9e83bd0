"""Nets written in Python become the messages that prototxt files hold."""

import numpy as np
import pytest
from google.protobuf import text_format

from prototxt_parser import build_net
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text
from pycaffe.net_spec import Function, NetSpec, assign_proto, param_name_dict, to_proto
from pycaffe.net_spec import layers as L
from pycaffe.net_spec import params as P


def lenet() -> NetSpec:
    n = NetSpec()
    n.data, n.label = L.DummyData(
        shape=[{"dim": [6, 1, 28, 28]}, {"dim": [6]}], transform_param={"scale": 0.5}, ntop=2
    )
    n.conv1 = L.Convolution(
        n.data, kernel_size=5, num_output=20, weight_filler={"type": "xavier"},
        param=[{"lr_mult": 1}, {"lr_mult": 2}],
    )  # fmt: skip
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.ip1 = L.InnerProduct(n.pool1, num_output=10, weight_filler={"type": "xavier"})
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.loss = L.SoftmaxWithLoss(n.relu1, n.label)
    return n


def test_names_come_from_the_attributes() -> None:
    net = lenet().to_proto()
    assert [layer.name for layer in net.layer] == ["data", "conv1", "pool1", "ip1", "relu1", "loss"]
    assert [list(layer.top) for layer in net.layer] == [
        ["data", "label"], ["conv1"], ["pool1"], ["ip1"], ["ip1"], ["loss"],
    ]  # fmt: skip
    assert list(net.layer[-1].bottom) == ["ip1", "label"]
    assert not net.HasField("name") and not net.HasField("state")


def test_settings_go_to_the_message_of_the_type_or_to_the_layer() -> None:
    conv = lenet().to_proto().layer[1]
    want = caffe_pb2.LayerParameter()
    text_format.Parse(
        'name: "conv1" type: "Convolution" bottom: "data" top: "conv1" '
        "param { lr_mult: 1 } param { lr_mult: 2 } "
        'convolution_param { num_output: 20 kernel_size: 5 weight_filler { type: "xavier" } }',
        want,
    )
    assert conv == want


def test_the_text_parses_back_and_builds() -> None:
    spec = lenet()
    spec.data = L.Input(shape={"dim": [6, 1, 28, 28]})
    spec.label = L.Input(shape={"dim": [6]})
    spec.conv1.fn.inputs = (spec.data,)
    spec.loss.fn.inputs = (spec.relu1, spec.label)
    net = spec.to_proto()
    assert parse_text(str(net), caffe_pb2.NetParameter(), "spec") == net
    built = build_net(net, "TRAIN")
    assert built.blob_shapes["pool1"] == (6, 20, 12, 12)
    assert sum(p.numel() for p in built.parameters()) == 20 * 26 + 10 * 20 * 144 + 10


def test_automatic_names_count_per_type() -> None:
    data, label = L.Data(ntop=2)
    first = L.InnerProduct(data, num_output=3)
    second = L.InnerProduct(first, num_output=5)
    net = to_proto(L.EuclideanLoss(second, label), L.Silence(first, ntop=0))
    assert [(layer.name, list(layer.bottom), list(layer.top)) for layer in net.layer] == [
        ("Data1", [], ["Data1", "Data2"]),
        ("InnerProduct1", ["Data1"], ["InnerProduct1"]),
        ("InnerProduct2", ["InnerProduct1"], ["InnerProduct2"]),
        ("EuclideanLoss1", ["InnerProduct2", "Data2"], ["EuclideanLoss1"]),
        ("Silence1", ["InnerProduct1"], []),
    ]


def test_an_unnamed_second_top_gets_an_automatic_name() -> None:
    n = NetSpec()
    n.data = L.Data(ntop=2)[0]
    assert list(n.to_proto().layer[0].top) == ["data", "Data1"]


def test_a_top_knows_its_own_net() -> None:
    top = L.ReLU(L.Input(), in_place=True)
    net = top.to_proto()
    assert [(layer.name, list(layer.top)) for layer in net.layer] == [
        ("Input1", ["Input1"]), ("ReLU1", ["Input1"]),
    ]  # fmt: skip


def test_only_reachable_layers_are_written_and_once() -> None:
    n = NetSpec()
    n.data = L.Input()
    L.TanH(n.data)
    middle = L.Sigmoid(n.data)
    n.sum = L.Eltwise(middle, middle)
    n.quiet = L.Silence(n.sum, ntop=0)
    net = n.to_proto()
    assert [layer.name for layer in net.layer] == ["data", "Sigmoid1", "sum", "quiet"]
    assert list(net.layer[2].bottom) == ["Sigmoid1", "Sigmoid1"]


def test_a_deep_net_of_which_only_the_end_is_named() -> None:
    top = L.Input()
    for _ in range(3000):
        top = L.Power(top)
    net = to_proto(top)
    assert len(net.layer) == 3001
    assert net.layer[-1].bottom == ["Power2999"]


def test_fields_of_the_layer_itself() -> None:
    layer = L.Convolution(
        L.Input(), num_output=2, name="own", phase=1, loss_weight=3, propagate_down=[False],
        include={"phase": 0, "stage": ["a", "b"]}, exclude=[{"min_level": 2}],
    ).to_proto().layer[1]  # fmt: skip
    assert (layer.name, list(layer.top)) == ("own", ["Convolution1"])
    assert (layer.phase, list(layer.loss_weight), list(layer.propagate_down)) == (1, [3], [False])
    assert [(rule.phase, list(rule.stage)) for rule in layer.include] == [(0, ["a", "b"])]
    assert layer.exclude[0].min_level == 2


def test_types_without_their_own_message_take_whole_messages() -> None:
    layer = L.Deconvolution(L.Input(), convolution_param={"num_output": 4, "kernel_size": [3, 5]})
    message = layer.to_proto().layer[1].convolution_param
    assert (message.num_output, list(message.kernel_size)) == (4, [3, 5])
    with pytest.raises(AttributeError, match=r'LayerParameter has no field "num_output".*_param='):
        L.Deconvolution(L.Input(), num_output=4).to_proto()


def test_a_misspelt_setting_is_refused_with_the_near_name() -> None:
    with pytest.raises(AttributeError, match=r'no field "kernal_size".*kernel_size'):
        L.Pooling(L.Input(), pooling_param={"kernal_size": 3}).to_proto()


def test_a_value_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(TypeError):
        L.Convolution(L.Input(), num_output="many").to_proto()


@pytest.mark.parametrize("bottom", [3, "data", (L.Input(),), L.Silence(ntop=0)])
def test_an_input_that_is_no_top_is_refused(bottom: object) -> None:
    with pytest.raises(TypeError, match=r"^Pooling input 1 is not a Top \(type is <class .*>\)$"):
        L.Pooling(L.Input(), bottom)


def test_number_of_tops_decides_what_a_layer_returns() -> None:
    data = L.Input()
    assert isinstance(L.Silence(data, ntop=0), Function)
    halves = L.Slice(data, ntop=2)
    assert [top.n for top in halves] == [0, 1]
    assert halves[0].fn is halves[1].fn


def test_items_and_attributes_are_the_same() -> None:
    n = NetSpec()
    n["pool/3x3"] = L.Pooling(L.Input())
    assert "pool/3x3" in n and n["pool/3x3"] is n.tops["pool/3x3"]
    assert [layer.name for layer in n.to_proto().layer] == ["Input1", "pool/3x3"]
    del n["pool/3x3"]
    assert not n.tops
    with pytest.raises(KeyError):
        n["pool/3x3"]
    with pytest.raises(AttributeError, match="nothing is assigned to gone"):
        _ = n.gone
    with pytest.raises(TypeError, match="data must be a Top or a layer without tops"):
        n.data = L.Data(ntop=2)


def test_values_of_every_kind() -> None:
    conv = caffe_pb2.ConvolutionParameter()
    assign_proto(conv, "kernel_size", np.array([3, 5]))
    assign_proto(conv, "stride", (2, 4))
    assign_proto(conv, "pad", np.int64(1))
    assign_proto(conv, "bias_term", np.bool_(False))
    assign_proto(conv, "weight_filler", {"std": np.float32(0.5)})
    assert list(conv.kernel_size) == [3, 5] and list(conv.stride) == [2, 4] and conv.pad == [1]
    assert conv.HasField("bias_term") and not conv.bias_term
    assert conv.weight_filler.std == 0.5


def test_enum_values_by_name() -> None:
    assert P.Pooling.AVE == caffe_pb2.PoolingParameter.AVE == 1
    assert P.Data.LMDB == 1
    assert P.Eltwise.PROD == 0
    with pytest.raises(AttributeError, match="no settings PoolinParameter"):
        _ = P.Poolin


def test_the_name_map_comes_from_the_messages() -> None:
    names = param_name_dict()
    assert names["InnerProduct"] == "inner_product"
    assert names["HDF5Data"] == "hdf5_data" and names["ReLU"] == "relu" and names["LRN"] == "lrn"
    assert names["Transformation"] == "transform"
    assert "Deconvolution" not in names and "SoftmaxWithLoss" not in names
