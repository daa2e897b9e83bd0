"""The recorded layers, replayed through the interface that they were recorded with."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import pycaffe as caffe
from golden_cases import golden_cases
from layer_case import LayerCase

PHASES = {"TRAIN": caffe.TRAIN, "TEST": caffe.TEST}


def blob(net: caffe.Net, key: str) -> caffe.Blob:
    layer, index = key.rsplit("/", 1)
    return net.params[layer][int(index)]


def renewed(net: caffe.Net | None, case: LayerCase, step: int) -> caffe.Net:
    """The net for a step: a new one at the start and when the phase changes."""
    if net is not None and case.phase(step) == case.phase(step - 1):
        return net
    new = caffe.Net("net.prototxt", PHASES[case.phase(step)])
    for name, blobs in net.params.items() if net is not None else ():
        for mine, old in zip(new.params[name], blobs, strict=True):
            mine.data[...] = old.data
    return new


def set_memory(net: caffe.Net, case: LayerCase) -> None:
    arrays = case.group("memory")
    if arrays:
        net.set_input_arrays(arrays["data"], arrays["label"])


def check_forward(net: caffe.Net, case: LayerCase) -> None:
    for key, value in case.group("param").items():
        blob(net, key).data[...] = value
    for name, value in case.group("bottom").items():
        net.blobs[name].reshape(*value.shape)
        net.blobs[name].data[...] = value
    loss = net._forward(0, len(net.layers) - 1)
    for name in case.group("top"):
        case.check("top", name, net.blobs[name].data)
    if f"{case.prefix}total_loss" in case.arrays:
        case.check("", "total_loss", np.float32(loss))
    for key in case.group("param_after"):
        case.check("param_after", key, blob(net, key).data)


def check_backward(net: caffe.Net, case: LayerCase, step: int) -> None:
    if step == 0 or case.info["clear_param_diffs_between_steps"]:
        net.clear_param_diffs()
    for name, diff in case.group("top_diff").items():
        if name in case.info["top_diff_injected"]:
            net.blobs[name].diff[...] = diff
        else:
            case.check("top_diff", name, net.blobs[name].diff)
    net.backward()
    for name in case.group("bottom_diff"):
        case.check("bottom_diff", name, net.blobs[name].diff)
    for key in case.group("param_diff"):
        case.check("param_diff", key, blob(net, key).diff)


@pytest.mark.parametrize("folder", golden_cases("layers"))
def test_layer_equals_caffe(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, tmp_path / "case")  # HDF5Output writes beside the net
    monkeypatch.chdir(tmp_path / "case")
    case = LayerCase(folder)
    net: caffe.Net | None = None
    for step in range(case.info["steps"]):
        case.select(step)
        net = renewed(net, case, step)
        if step == 0:
            for key in case.group("param_init"):
                case.check("param_init", key, blob(net, key).data)
            set_memory(net, case)
        check_forward(net, case)
        if case.info["checks_gradients"]:
            check_backward(net, case, step)
    if "expects_file" in case.info:
        with h5py.File(case.info["expects_file"]) as file:
            for key in (key for key in case.arrays if key.startswith("h5/")):
                np.testing.assert_array_equal(file[key.removeprefix("h5/")], case.arrays[key])
