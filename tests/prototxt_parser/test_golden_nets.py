"""Whole nets against what real Caffe computed, with weights from an integer hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golden_cases import golden_cases
from prototxt_parser import Net, build_net, read_net
from prototxt_parser.build import build_for_state
from prototxt_parser.definition import NetDefinition
from prototxt_parser.live_net import LiveNet
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.random_source import RandomSource
from prototxt_parser.state import net_state

OUR_NAMES = {
    "bvlc_alexnet": "alexnet",
    "bvlc_googlenet": "googlenet",
    "bvlc_googlenet_deploy": "googlenet_deploy",
    "bvlc_reference_caffenet": "caffenet",
    "bvlc_reference_rcnn_ilsvrc13": "rcnn_ilsvrc13_deploy",
}


def hashed(count: int, p: int, salt: int, scale: float, offset: float) -> np.ndarray:
    """The recorded generator: exact 32-bit arithmetic."""
    mask = np.uint64(0xFFFFFFFF)
    h = np.arange(count, dtype=np.uint64) * np.uint64(2654435761)
    h = (h + np.uint64(((p + 1) * 40503 * 65537 + salt * 374761393) & 0xFFFFFFFF)) & mask
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(2246822519)) & mask
    h ^= h >> np.uint64(13)
    h = (h * np.uint64(3266489917)) & mask
    h ^= h >> np.uint64(16)
    return (offset + scale * (h.astype(np.float64) / 2**32 - 0.5)).astype(np.float32)


def sample(values: np.ndarray) -> np.ndarray:
    count = values.size
    index = (np.arange(32) * (count // 32) + 7 * np.arange(32)) % count
    return values.reshape(-1)[index]


def inputs(info: dict[str, Any]) -> dict[str, torch.Tensor]:
    result = {}
    for name, spec in info["inputs"].items():
        count = int(np.prod(spec["shape"]))
        if "formula" in spec:
            n = np.arange(count)
            values = eval(spec["formula"].replace("mod", "%"), {"n": n}).astype(np.float32)
        else:
            values = hashed(count, spec["p"], info["salt"], spec["scale"], spec["offset"])
        result[name] = torch.from_numpy(values.reshape(spec["shape"]))
    return result


def definition(folder: Path, info: dict[str, Any]) -> NetDefinition:
    """The net with Data layers replaced by Inputs, and no dropout."""
    if (folder / "net.prototxt").exists():
        return read_net(folder / "net.prototxt")
    model = str(info["model"])
    found = read_net(f"{OUR_NAMES.get(model, model)}.prototxt")
    net = caffe_pb2.NetParameter()
    net.CopyFrom(found.param)
    del net.layer[:]
    for name, spec in info["inputs"].items():
        layer = net.layer.add(name=name, type="Input", top=[name])
        layer.input_param.shape.add(dim=spec["shape"])
    for layer in found.param.layer:
        if layer.type not in ("Data", "Input"):
            net.layer.add().CopyFrom(layer)
            if layer.type == "Dropout":
                net.layer[-1].dropout_param.dropout_ratio = 0
    return NetDefinition(net)


def set_parameters(net: Net, info: dict[str, Any]) -> None:
    with torch.no_grad():
        for layer, index, p, scale, offset, shape in info["params"]:
            blob = net.layers[layer].blobs[index]
            assert list(blob.shape) == shape, layer
            values = hashed(blob.numel(), p, info["salt"], scale, offset)
            blob.copy_(torch.from_numpy(values.reshape(shape)))


def compare(
    got: list[torch.Tensor], arrays: dict[str, np.ndarray], kind: str, tolerance: dict[str, float]
) -> None:
    """Compare tensors with the recorded L2 norms and samples, row by row."""
    norms, samples = arrays[f"f64/{kind}_mean_l2"], arrays[f"{kind}_samples"]
    assert len(got) == len(norms)
    allowed = tolerance["samples_max_over_rms"]
    near = []
    for row, tensor in enumerate(got):
        values = tensor.detach().double().numpy()
        l2, rms = norms[row][1], norms[row][1] / np.sqrt(max(1, values.size))
        error = np.abs(sample(values) - samples[row])
        if rms == 0:
            assert np.abs(values).max() <= 1e-5, (kind, row)
            continue
        assert abs(np.sqrt((values**2).sum()) - l2) <= tolerance["l2_rel"] * l2, (kind, row)
        assert error.max() <= allowed * rms, (kind, row, error.max() / rms)
        near.append(error <= 1e-3 * rms)
    assert np.concatenate(near).mean() >= tolerance.get("fraction_within_1e3_rms", 0), kind


def check_phase(
    folder: Path,
    info: dict[str, Any],
    arrays: dict[str, np.ndarray],
    phase: str,
    net_type: type[Net],
) -> None:
    net = build_for_state(
        definition(folder, info), net_state(phase), random=RandomSource(1), net_type=net_type
    )
    net.keeps_diffs = True
    set_parameters(net, info)
    learned = [net.layers[layer].blobs[index] for layer, index, *_ in info["params"]]
    np.testing.assert_array_equal(
        [sample(p.detach().numpy()) for p in learned], arrays["param_samples"]
    )
    net(inputs(info))
    expected = info["phases"][phase]["blobs"]
    assert [[name, list(net.blobs[name].shape)] for name in net.blob_shapes] == expected
    activations, gradients = (info["tolerance"][kind] for kind in ("activations", "gradients"))
    compare([net.blobs[name] for name in net.blob_shapes], arrays, f"{phase}/blob", activations)
    if f"{phase}/param_after_samples" in arrays:
        compare(learned, arrays, f"{phase}/param_after", activations)
    if f"{phase}/param_diff_samples" in arrays:
        net.backward()
        diffs = [torch.zeros_like(p) if p.grad is None else p.grad for p in learned]
        compare(diffs, arrays, f"{phase}/param_diff", gradients)
        compare([net.diff(n) for n in net.blob_shapes], arrays, f"{phase}/blob_diff", gradients)


@pytest.mark.parametrize("net_type", [Net, LiveNet])
@pytest.mark.parametrize("folder", golden_cases("nets"))
def test_net_equals_caffe(folder: Path, net_type: type[Net]) -> None:
    info = json.loads((folder / "case.json").read_text())
    arrays = dict(np.load(folder / "case.npz"))
    for phase in info["phases"]:
        check_phase(folder, info, arrays, phase, net_type)


@pytest.mark.parametrize("folder", golden_cases("nets"))
def test_net_has_the_recorded_layers(folder: Path) -> None:
    info = json.loads((folder / "case.json").read_text())
    for phase, order in info["layer_order"].items():
        net = build_net(definition(folder, info), phase, seed=1)
        assert [step.param.name for step in net.steps] == order
        blobs = [blob for step in net.steps for blob in step.layer.blobs]
        assert sum(blob.numel() for blob in blobs) == info["param_count"]
