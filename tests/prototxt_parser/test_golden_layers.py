"""Single layers against what real Caffe computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golden_cases import case_names, golden_cases
from prototxt_parser import Net, build_net, read_net
from prototxt_parser.layers.registry import layer_types


class Case:
    """A recorded case: what to write, what to expect, how closely."""

    def __init__(self, folder: Path) -> None:
        self.info = json.loads((folder / "case.json").read_text())
        self.arrays = dict(np.load(folder / "case.npz"))
        self.prefix = ""

    def select(self, step: int) -> None:
        self.prefix = f"step{step}/" if self.info["steps"] > 1 else ""

    def phase(self, step: int) -> str:
        phase = self.info["phase"]
        return phase if isinstance(phase, str) else phase[step]

    def group(self, kind: str) -> dict[str, np.ndarray]:
        """Arrays of a kind in this step: everything after `kind/` is the key."""
        start = f"{self.prefix}{kind}/"
        return {k[len(start) :]: v for k, v in self.arrays.items() if k.startswith(start)}

    def check(self, kind: str, name: str, got: torch.Tensor) -> None:
        key = f"{self.prefix}{kind}/{name}" if kind else f"{self.prefix}{name}"
        want = self.arrays[key]
        value = got.detach().numpy()
        assert value.shape == want.shape, key
        ignored = self.arrays.get(f"ignore/{key}", np.zeros(want.shape, dtype=bool))
        value, want = value[~ignored], want[~ignored]
        overrides = self.info["tolerance_overrides"]
        tolerance = overrides.get(key, overrides.get(f"{kind}/{name}", self.info["tolerance"]))
        if key in self.info["exact"] or f"{kind}/{name}" in self.info["exact"]:
            np.testing.assert_array_equal(value, want, err_msg=key)
        else:
            np.testing.assert_allclose(
                value, want, rtol=tolerance["rtol"], atol=tolerance["atol"], err_msg=key
            )


def write_parameters(net: Net, arrays: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        for key, value in arrays.items():
            layer, index = key.rsplit("/", 1)
            net.layers[layer].blobs[int(index)].copy_(torch.from_numpy(value))


@pytest.mark.parametrize("folder", golden_cases("layers"))
def test_layer_equals_caffe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    case = Case(folder)
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


def rebuilt(net: Net | None, folder: Path, phase: str) -> Net:
    new = build_net(read_net(folder / "net.prototxt"), phase, seed=7)
    new.keeps_diffs = True
    if net is not None:
        new.load_state_dict(net.state_dict())
    return new


def run_step(net: Net, case: Case, step: int) -> None:
    write_parameters(net, case.group("param"))
    bottoms = {name: torch.from_numpy(value) for name, value in case.group("bottom").items()}
    net(bottoms)
    for name in case.group("top"):
        case.check("top", name, net.blobs[name])
    if f"{case.prefix}total_loss" in case.arrays:
        case.check("", "total_loss", net.loss)
    for key in case.group("param_after"):
        layer, index = key.rsplit("/", 1)
        case.check("param_after", key, net.layers[layer].blobs[int(index)])
    if case.info["checks_gradients"]:
        check_gradients(net, case, step)


def check_gradients(net: Net, case: Case, step: int) -> None:
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
    fed_from_outside = {"Data"}
    assert set(layer_types()) - fed_from_outside <= {
        name.split("/")[1] for name in case_names("layers")
    }
