"""Single layers against what real Caffe computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from golden_cases import case_names, golden_cases
from layer_case import LayerCase
from prototxt_parser import Net, build_net, read_net
from prototxt_parser.layers.registry import layer_types


def write_parameters(net: Net, arrays: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        for key, value in arrays.items():
            layer, index = key.rsplit("/", 1)
            net.layers[layer].blobs[int(index)].copy_(torch.from_numpy(value))


# Those of HDF5Data read files, which is the trainer's work: tests/trainer/test_data_golden.py.
CASES = [case for case in golden_cases("layers") if "/HDF5Data/" not in str(case.id)]


@pytest.mark.parametrize("folder", CASES)
def test_layer_equals_caffe(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    case = LayerCase(folder)
    if "expects_file" in case.info:
        monkeypatch.chdir(tmp_path)
    net: Any = None
    for step in range(case.info["steps"]):
        case.select(step)
        if net is None or case.phase(step) != case.phase(step - 1):
            net = rebuilt(net, folder, case.phase(step))
            if step == 0:
                for key in case.group("param_init"):
                    layer, index = key.rsplit("/", 1)
                    case.check("param_init", key, net.layers[layer].blobs[int(index)])
        run_step(net, case, step)
    if "expects_file" in case.info:
        check_file(case)


def rebuilt(net: Net | None, folder: Path, phase: str) -> Net:
    new = build_net(read_net(folder / "net.prototxt"), phase, seed=7)
    new.keeps_diffs = True
    if net is not None:
        new.load_state_dict(net.state_dict())
    return new


def run_step(net: Net, case: LayerCase, step: int) -> None:
    write_parameters(net, case.group("param"))
    bottoms = {name: torch.from_numpy(value) for name, value in case.group("bottom").items()}
    write_held_tops(net, bottoms)
    net(bottoms | memory_batch(net, case, step))
    for name in case.group("top"):
        case.check("top", name, net.blobs[name])
    if f"{case.prefix}total_loss" in case.arrays:
        case.check("", "total_loss", net.loss)
    for key in case.group("param_after"):
        layer, index = key.rsplit("/", 1)
        case.check("param_after", key, net.layers[layer].blobs[int(index)])
    if case.info["checks_gradients"]:
        check_gradients(net, case, step)


def write_held_tops(net: Net, bottoms: dict[str, torch.Tensor]) -> None:
    """Write the values of tops that a layer keeps into its memory; leave the others."""
    for net_step in net.steps:
        for index, held in net_step.layer.held_tops.items():
            if net_step.tops[index] in bottoms:
                held.copy_(bottoms.pop(net_step.tops[index]))


def memory_batch(net: Net, case: LayerCase, step: int) -> dict[str, torch.Tensor]:
    """The batch that MemoryData gives in a step of the arrays that it was handed, in a cycle."""
    arrays = {k.split("memory/")[1]: v for k, v in case.arrays.items() if "memory/" in k}
    if not arrays:
        return {}
    size = net.blob_shapes["data"][0]
    first = step * size % len(arrays["data"])
    data, label = (torch.from_numpy(arrays[n][first : first + size]) for n in ("data", "label"))
    return {"data": data, "label": label.reshape(size, 1, 1, 1)}


def check_file(case: LayerCase) -> None:
    with h5py.File(case.info["expects_file"]) as file:
        wanted = {k.removeprefix("h5/") for k in case.arrays if k.startswith("h5/")}
        assert set(file) == wanted
        for name in wanted:
            case.check("h5", name, torch.from_numpy(file[name][...]))


def check_gradients(net: Net, case: LayerCase, step: int) -> None:
    if step == 0 or case.info["clear_param_diffs_between_steps"]:
        net.flat.grad.zero_()
    diffs = case.group("top_diff")
    net.backward({n: torch.from_numpy(diffs[n]) for n in case.info["top_diff_injected"]})
    for name in case.group("bottom_diff"):
        case.check("bottom_diff", name, net.diff(name))
    for key in case.group("param_diff"):
        layer, index = key.rsplit("/", 1)
        parameter = net.layers[layer].blobs[int(index)]
        case.check(
            "param_diff",
            key,
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad,
        )


def test_every_layer_type_has_a_case() -> None:
    recorded_elsewhere = {"Data", "ImageData", "WindowData"}
    users = {"Python"}
    assert set(layer_types()) - recorded_elsewhere - users <= {
        name.split("/")[1] for name in case_names("layers")
    }
