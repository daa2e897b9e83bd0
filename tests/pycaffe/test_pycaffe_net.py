"""Caffe's Net for Python: construction, live arrays, partial passes, files, refusals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import pycaffe as caffe
from prototxt_parser import Net, PrototxtError, build_net, read_net
from prototxt_parser.build import build_for_state
from prototxt_parser.live_net import LiveNet
from prototxt_parser.random_source import RandomSource
from prototxt_parser.state import net_state
from trainer.errors import DataError

NET = """
name: "small" force_backward: true
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 5 dim: 3 } } }
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 5 dim: 2 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "ip1"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" relu_param { negative_slope: 0.1 } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "tanh" type: "TanH" bottom: "ip1" top: "h" include { stage: "wide" } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip2" bottom: "t" top: "loss" loss_weight: 2 }
"""
DEPLOY = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "ip1"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "soft" type: "Softmax" bottom: "ip1" top: "soft" }
"""

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> str:
        path = tmp_path / f"{abs(hash(text))}.prototxt"
        path.write_text(text)
        return str(path)

    return written


@pytest.fixture
def net(write: Write) -> caffe.Net:
    caffe.set_random_seed(4)
    net = caffe.Net(write(NET), caffe.TRAIN)
    values = np.random.default_rng(3)
    for name in net.inputs:
        net.blobs[name].data[...] = values.normal(size=net.blobs[name].shape)
    return net


def test_attributes_name_everything(write: Write) -> None:
    net = caffe.Net(write(NET), caffe.TRAIN, stages=["wide"])
    splits = ["ip1_relu_0_split_0", "ip1_relu_0_split_1"]
    assert list(net.blobs) == ["x", "t", "ip1", *splits, "ip2", "h", "loss"]
    assert list(net.params) == ["ip1", "ip2"]
    assert [blob.shape for blob in net.params["ip1"]] == [(4, 3), (4,)]
    assert net.inputs == ["x", "t"]
    assert net.outputs == ["h", "loss"]
    assert [layer.type for layer in net.layers][4:6] == ["Split", "InnerProduct"]
    assert net.layer_dict["ip2"].blobs[0] is net.params["ip2"][0]
    assert net.blob_loss_weights["loss"] == 2
    assert net.blob_loss_weights["ip2"] == 0
    assert net.top_names["ip1_relu_0_split"] == splits
    assert net.bottom_names["ip2"] == [splits[0]]
    assert [net._blob_names[i] for i in net._outputs] == net.outputs
    assert [net._blob_names[i] for i in net._bottom_ids(5)] == [splits[0]]


def test_an_automatic_top_is_a_blob_but_no_output(write: Write) -> None:
    net = caffe.Net(write(NET.replace('top: "loss" loss_weight: 2', "")), caffe.TRAIN)
    assert net.outputs == []
    assert net.forward() == {}
    assert net.blobs["(automatic)"].diff == 1
    assert net.top_names["loss"] == ["(automatic)"]


def test_constructors(write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, weights = write(NET), str(tmp_path / "a.caffemodel")
    first = caffe.Net(path, caffe.TRAIN)
    first.save(weights)
    with caplog.at_level(logging.WARNING):
        legacy = caffe.Net(path, weights, caffe.TEST)
    assert "DEPRECATION" in caplog.text
    modern = caffe.Net(
        network_file=path, phase=caffe.TEST, level=1, stages=["wide"], weights=weights
    )
    for net in (legacy, modern):
        np.testing.assert_array_equal(net.params["ip1"][0].data, first.params["ip1"][0].data)
    assert "h" in modern.blobs
    assert "h" not in legacy.blobs


def test_missing_files_are_named(write: Write) -> None:
    with pytest.raises(RuntimeError, match=r"Could not open file /no/net\.prototxt"):
        caffe.Net("/no/net.prototxt", caffe.TEST)
    with pytest.raises(RuntimeError, match=r"Could not open file /no/w\.caffemodel"):
        caffe.Net(write(NET), caffe.TEST, weights="/no/w.caffemodel")


def test_shipped_files_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = caffe.Net("lenet_deploy.prototxt", caffe.TEST)
    assert net.blobs["data"].data.shape == (64, 1, 28, 28)
    Path("lenet_deploy.prototxt").write_text(NET)
    assert list(caffe.Net("lenet_deploy.prototxt", caffe.TEST).blobs)[:2] == ["x", "t"]
    with pytest.raises(DataError, match="mnist_train_lmdb does not exist"):
        caffe.get_solver("lenet_solver.prototxt")


def test_writing_a_weight_changes_the_next_forward(net: caffe.Net) -> None:
    weight, ip2 = net.params["ip2"][0].data, net.blobs["ip2"].data
    net.forward()
    before = ip2.copy()
    weight *= 2
    net.forward()
    np.testing.assert_allclose(ip2, 2 * before, rtol=1e-6)


def test_parameter_diffs_add_up_and_others_are_overwritten(net: caffe.Net) -> None:
    net.forward()
    net.backward()
    weight, below = net.params["ip1"][0].diff, net.blobs["x"].diff
    once, x = weight.copy(), below.copy()
    assert np.abs(once).max() > 0
    net.backward()
    np.testing.assert_allclose(weight, 2 * once, rtol=1e-6)
    np.testing.assert_array_equal(below, x)
    net.clear_param_diffs()
    assert not weight.any()
    assert below.any()


def test_the_loss_is_seeded_by_its_diff(net: caffe.Net) -> None:
    assert net.blobs["loss"].data.shape == ()
    assert net.blobs["loss"].diff == 2
    loss = net._forward(0, len(net.layers) - 1)
    assert loss == pytest.approx(2 * float(net.blobs["loss"].data))
    first = net.backward()["x"].copy()
    net.blobs["loss"].diff[...] = 6
    np.testing.assert_allclose(net.backward()["x"], 3 * first, rtol=1e-6)


def test_a_pass_may_start_and_end_anywhere(net: caffe.Net) -> None:
    assert list(net.forward(end="ip1")) == ["ip1"]
    assert not net.blobs["loss"].data.any()
    net.blobs["ip1"].data[...] = 1
    outputs = net.forward(start="relu", blobs=["ip2"])
    assert sorted(outputs) == ["ip2", "loss"]
    weight, bias = (blob.data for blob in net.params["ip2"])
    want = np.tile(weight.sum(1) + bias, (5, 1))
    np.testing.assert_allclose(outputs["ip2"], want, rtol=1e-6, atol=1e-6)
    net.blobs["ip2"].diff[...] = 1
    diffs = net.backward(start="ip2", end="ip2")
    np.testing.assert_allclose(diffs["ip1"], np.tile(weight.sum(0), (5, 1)), rtol=1e-6)
    assert not net.blobs["x"].diff.any()


def test_edits_between_layers_count(net: caffe.Net) -> None:
    def double(layer: int) -> None:
        if net._layer_names[layer] == "relu":
            net.blobs["ip1"].data[...] *= 2

    net.forward()
    plain = net.blobs["ip2"].data.copy()
    net.after_forward(double)
    net.forward()
    np.testing.assert_allclose(net.blobs["ip2"].data, 2 * plain, rtol=1e-6)


def test_hooks_get_every_layer_in_order(net: caffe.Net) -> None:
    seen: list[tuple[str, int]] = []
    for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, name)(lambda layer, name=name: seen.append((name, layer)))
    net.forward(start="ip1", end="relu")
    net._backward(1, 0)
    assert seen == [
        ("before_forward", 2), ("after_forward", 2), ("before_forward", 3), ("after_forward", 3),
        ("before_backward", 1), ("after_backward", 1),
        ("before_backward", 0), ("after_backward", 0),
    ]  # fmt: skip


def test_inputs_by_name_are_broadcast(net: caffe.Net) -> None:
    x = np.ones((5, 1))
    outputs = net.forward(x=x, t=np.zeros((5, 2)))
    np.testing.assert_array_equal(net.blobs["x"].data, np.ones((5, 3)))
    assert outputs["loss"] is not None
    assert np.shares_memory(outputs["loss"], net.blobs["loss"].data)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": np.ones((5, 3))}, "Input blob arguments do not match net inputs"),
        ({"x": np.ones((4, 3)), "t": np.ones((5, 2))}, "Input is not batch sized"),
    ],
)
def test_wrong_inputs_are_refused(
    net: caffe.Net, inputs: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        net.forward(**inputs)


@pytest.mark.parametrize(
    ("diffs", "message"),
    [
        ({"ip2": np.ones((5, 2))}, "Top diff arguments do not match net outputs"),
        ({"loss": np.ones(3)}, "Diff is not batch sized"),
    ],
)
def test_wrong_diffs_are_refused(
    net: caffe.Net, diffs: dict[str, np.ndarray], message: str
) -> None:
    net.forward()
    with pytest.raises(ValueError, match=message):
        net.backward(**diffs)


def test_other_wrong_calls_are_refused(net: caffe.Net) -> None:
    with pytest.raises(PrototxtError, match=r'"loss" \(EuclideanLoss\): backward needs a forward'):
        net.backward()
    with pytest.raises(ValueError, match="'ip3' is no layer"):
        net.forward(start="ip3")
    with pytest.raises(ValueError, match="numbered 0 to 5"):
        net._forward(0, 6)
    with pytest.raises(TypeError, match=r"Blob\.reshape takes no kwargs"):
        net.blobs["x"].reshape(num=1)
    with pytest.raises(PrototxtError, match="it cannot grow"):
        net.params["ip1"][0].reshape(40, 3)
    with pytest.raises(RuntimeError, match="first layer is a MemoryDataLayer"):
        net.set_input_arrays(np.ones((2, 1, 1, 1), np.float32), np.ones(2, np.float32))


def test_tops_follow_reshaped_inputs(net: caffe.Net) -> None:
    net.blobs["x"].reshape(7, 3)
    net.blobs["t"].reshape(7, 2)
    net.reshape()
    assert net.blobs["ip2"].shape == (7, 2)
    net.forward()
    net.backward()
    assert net.blobs["x"].diff.shape == (7, 3)
    net.blobs["x"].reshape(7, 4)
    with pytest.raises(PrototxtError, match=r'layer "ip1" \(InnerProduct\)'):
        net.forward()


def test_a_weighted_top_keeps_its_weight_when_it_grows(write: Write) -> None:
    text = DEPLOY.replace('top: "soft"', 'top: "soft" loss_weight: 3')
    net = caffe.Net(write(text), caffe.TRAIN)
    net.blobs["x"].reshape(6, 3)
    net.forward()
    np.testing.assert_array_equal(net.blobs["soft"].diff, np.full((6, 4), 3))


def test_arrays_outlive_net_and_blob(write: Write) -> None:
    net = caffe.Net(write(DEPLOY), caffe.TEST)
    net.blobs["x"].data[...] = 1
    top = net.forward()["soft"]
    del net
    np.testing.assert_allclose(top.sum(1), [1, 1], rtol=1e-6)


def test_a_blob_keeps_its_memory_while_it_suffices() -> None:
    blob = caffe.Blob((2, 3))
    view = blob.data
    view[...] = np.arange(6).reshape(2, 3)
    blob.reshape(4)
    np.testing.assert_array_equal(blob.data, [0, 1, 2, 3])
    assert np.shares_memory(view, blob.data)
    assert (blob.num, blob.channels, blob.count) == (4, 1, 4)
    blob.reshape(7, 1, 1, 1, 1)
    assert not blob.data.any()
    with pytest.raises(PrototxtError, match="legacy accessors"):
        _ = blob.num


def test_split_tops_are_the_memory_of_their_bottom(write: Write) -> None:
    net = caffe.Net(write(NET), caffe.TRAIN, stages=["wide"])
    net.forward()
    assert np.shares_memory(net.blobs["ip1"].data, net.blobs["ip1_relu_0_split_1"].data)


def test_without_a_loss_nothing_runs_backward(write: Write) -> None:
    net = caffe.Net(write(DEPLOY), caffe.TEST)
    net.blobs["x"].data[...] = 1
    net.forward()
    net.backward(soft=np.ones((2, 4)))
    assert not net.params["ip1"][0].diff.any()
    forced = caffe.Net(write("force_backward: true " + DEPLOY), caffe.TEST)
    forced.blobs["x"].data[...] = 1
    forced.forward()
    seed = np.arange(8).reshape(2, 4)
    assert forced.backward(soft=seed, diffs=["ip1"])["ip1"].any()
    assert forced.blobs["x"].diff.any()


def test_asking_labels_for_a_gradient_is_refused(write: Write) -> None:
    text = NET.replace('"EuclideanLoss"', '"HingeLoss" propagate_down: true propagate_down: true')
    net = caffe.Net(write(text.replace("dim: 5 dim: 2", "dim: 5")), caffe.TRAIN)
    net.forward()
    with pytest.raises(PrototxtError, match="cannot backpropagate to label inputs"):
        net.backward()


def test_any_number_of_items_runs_in_batches(write: Write) -> None:
    net = caffe.Net(write("force_backward: true " + DEPLOY), caffe.TEST)
    x = np.random.default_rng(5).normal(size=(5, 3)).astype(np.float32)
    outputs = net.forward_all(blobs=["ip1"], x=x)
    weight, bias = (blob.data for blob in net.params["ip1"])
    np.testing.assert_allclose(outputs["ip1"], x @ weight.T + bias, rtol=1e-5, atol=1e-6)
    assert outputs["soft"].shape == (5, 4)
    seed = np.zeros((5, 4), np.float32)
    seed[:, 1] = 1
    outputs, diffs = net.forward_backward_all(diffs=["ip1"], x=x, soft=seed)
    p = outputs["soft"]
    np.testing.assert_allclose(diffs["ip1"], p * (seed - p[:, 1:2]), rtol=1e-4, atol=1e-6)
    assert diffs["x"].shape == (5, 3)


@pytest.mark.parametrize(("save", "load"), [("save", "copy_from"), ("save_hdf5", "load_hdf5"),
                                            ("save_hdf5", "copy_from")])  # fmt: skip
def test_saved_weights_load_into_live_arrays(
    write: Write, tmp_path: Path, save: str, load: str
) -> None:
    first, second = caffe.Net(write(NET), caffe.TRAIN), caffe.Net(write(NET), caffe.TEST)
    view = second.params["ip1"][0].data
    getattr(first, save)(str(tmp_path / "weights"))
    assert not np.array_equal(view, first.params["ip1"][0].data)
    getattr(second, load)(str(tmp_path / "weights"))
    np.testing.assert_array_equal(view, first.params["ip1"][0].data)


def test_sharing_nets_have_one_data_and_two_diffs(write: Write) -> None:
    first, second = caffe.Net(write(NET), caffe.TRAIN), caffe.Net(write(NET), caffe.TRAIN)
    second.share_with(first)
    first.params["ip1"][1].data[...] = 5
    np.testing.assert_array_equal(second.params["ip1"][1].data, np.full(4, 5))
    for name in second.inputs:
        second.blobs[name].data[...] = 1
    second.forward()
    second.backward()
    assert second.params["ip1"][1].diff.any()
    assert not first.params["ip1"][1].diff.any()
    second.clear_param_diffs()
    assert not second.params["ip1"][1].diff.any()


def test_seeds_make_fillers_repeat(write: Write) -> None:
    def weights() -> list[np.ndarray]:
        caffe.set_random_seed(11)
        return [caffe.Net(write(NET), caffe.TRAIN).params["ip1"][0].data for _ in range(2)]

    first, second = weights(), weights()
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


MEMORY = """layer { name: "m" type: "MemoryData" top: "d" top: "l"
  memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 } }"""


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((4, 2, 4, 5), 4, "data array has wrong number of channels"),
        ((4, 3, 5, 5), 4, "data array has wrong height"),
        ((4, 3, 4, 4), 4, "data array has wrong width"),
        ((4, 3, 20), 4, "data array must be 4-d"),
        ((4, 3, 4, 5), 6, "data and labels must have the same first dimension"),
        ((3, 3, 4, 5), 3, "first dimensions of input arrays must be a multiple of batch size"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    write: Write, shape: tuple[int, ...], labels: int, message: str
) -> None:
    net = caffe.Net(write(MEMORY), caffe.TRAIN)
    with pytest.raises(RuntimeError, match=message):
        net.set_input_arrays(np.zeros(shape, np.float32), np.zeros(labels, np.float32))


def test_arrays_of_another_kind_are_refused(write: Write) -> None:
    net, labels = caffe.Net(write(MEMORY), caffe.TRAIN), np.zeros(4, np.float32)
    with pytest.raises(RuntimeError, match="must be float32"):
        net.set_input_arrays(np.zeros((4, 3, 4, 5)), labels)
    with pytest.raises(RuntimeError, match="must be C contiguous"):
        net.set_input_arrays(np.zeros((5, 4, 3, 4), np.float32).T, labels)
    with pytest.raises(PrototxtError, match="needs to be initialized by calling Reset"):
        net.forward()


@pytest.mark.parametrize("top", ["x", "y"], ids=["in place", "apart"])
def test_a_bias_as_large_as_its_bottom_gets_the_gradient_of_the_top(write: Write, top: str) -> None:
    net = caffe.Net(
        write(
            "force_backward: true "
            'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 2 } } } '
            f'layer {{ name: "s" type: "Scale" bottom: "x" top: "{top}" '
            "scale_param { axis: 0 num_axes: -1 bias_term: true filler { value: 2 } } }"
        ),
        caffe.TRAIN,
    )
    net.blobs["x"].data[...] = 5
    net.forward()
    diff = np.arange(6, dtype=np.float32).reshape(3, 2)
    net.blobs[top].diff[...] = diff
    net.backward()
    np.testing.assert_array_equal(net.blobs["x"].diff, 2 * diff)
    np.testing.assert_array_equal(net.params["s"][0].diff, 5 * diff)
    np.testing.assert_array_equal(net.params["s"][1].diff, diff)


@pytest.mark.parametrize("top", ["x", "y"], ids=["in place", "apart"])
def test_a_constant_passes_no_gradient(write: Write, top: str) -> None:
    net = caffe.Net(
        write(
            "force_backward: true "
            'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 2 } } } '
            f'layer {{ name: "p" type: "Power" bottom: "x" top: "{top}" '
            "power_param { power: 2 scale: 0 shift: 3 } }"
        ),
        caffe.TRAIN,
    )
    net.forward()
    assert (net.blobs[top].data == 9).all()
    net.blobs["x"].diff[...] = net.blobs[top].diff[...] = 7
    net.backward()
    assert not net.blobs["x"].diff.any()


def both(name: str, shapes: dict[str, tuple[int, ...]]) -> list[Net]:
    definition = read_net(name)
    return [
        build_for_state(
            definition,
            net_state("TRAIN"),
            input_shapes=shapes,
            random=RandomSource(3),
            net_type=net_type,
        )
        for net_type in (Net, LiveNet)
    ]


@pytest.mark.parametrize("name", ["cifar10_quick.prototxt", "lenet.prototxt"])
def test_live_and_plain_nets_agree(name: str) -> None:
    side, channels = (32, 3) if "cifar" in name else (28, 1)
    shapes = {"data": (4, channels, side, side), "label": (4,)}
    plain, live = both(name, shapes)
    generator = torch.Generator().manual_seed(2)
    batch = {
        "data": torch.randn(shapes["data"], generator=generator),
        "label": torch.tensor([3.0, 0, 9, 1]),
    }
    for net in (plain, live):
        for _ in range(2):
            net(batch)
            net.backward()
    torch.testing.assert_close(plain.loss.detach(), live.loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(plain.flat.grad, live.flat.grad, rtol=1e-3, atol=1e-6)


def test_both_kinds_of_net_log_the_same_debug_lines(
    net: caffe.Net, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    plain = build_net(read_net(write(NET)), "TRAIN", seed=0)
    plain.load_state_dict(net.live.state_dict())
    lines = []
    for each in (plain, net.live):
        each.debug_info = True
        inputs = {name: torch.from_numpy(net.blobs[name].data.copy()) for name in net.inputs}
        with caplog.at_level(logging.INFO):
            caplog.clear()
            each(inputs)
            each.backward()
        lines.append([line for line in caplog.messages if "bottom blob" not in line])
    assert lines[0] == lines[1]
    assert any("bottom blob ip2 diff" in line for line in caplog.messages)
