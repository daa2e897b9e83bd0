"""Update rules, rates and resuming against what real Caffe computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golden_cases import golden_cases
from prototxt_parser import read_solver
from solver_case import SolverCase
from solvers import Callback, Solver


class Recorder(Callback):
    """Keeps raw gradients, rates and parameters as the recording did."""

    def __init__(self) -> None:
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


def history(solver: Solver) -> list[np.ndarray]:
    return [blob for slot in solver.history for blob in blobs(solver, slot)]


class RecordedFeed:
    """Feeds row f of every recorded batch at forward pass f."""

    def __init__(self, case: SolverCase) -> None:
        self.case = case
        self.number = 0

    def next(self) -> dict[str, torch.Tensor]:
        self.number += 1
        batch = self.case.batch(self.number - 1)
        return {blob: torch.from_numpy(value) for blob, value in batch.items()}

    def close(self) -> None:
        pass

    def state_dict(self) -> dict[str, int]:
        return {"number": self.number}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.number = state["number"]


def open_nothing(specs: Any) -> Any:
    raise AssertionError(f"no data layer is in these nets: {specs}")


def make_solver(folder: Path, case: SolverCase, name: str) -> Solver:
    solver = Solver(read_solver(folder / name), open_nothing, with_test_nets=False)
    solver.feed = RecordedFeed(case)  # type: ignore[assignment]
    assert [[s.layer, s.index] for s in solver.net.flat.segments] == case.info["params"]
    initial = case.initial()
    for segment in solver.net.flat.segments:
        value = initial.get((segment.layer, segment.index))
        if value is not None:
            solver.net.flat.data[segment.slice] = torch.from_numpy(value).reshape(-1)
    return solver


@pytest.mark.parametrize("folder", golden_cases("solvers"))
def test_solver_equals_caffe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    case = SolverCase(folder)
    solver = make_solver(folder, case, "solver.prototxt")
    recorder = Recorder()
    solver.callbacks.append(recorder)
    rates = []
    for _ in range(case.info["iterations"]):
        rates.append(solver.lr)
        solver.advance(1)
    case.check_rates(rates)
    case.check_losses(recorder.losses)
    case.check_all("rawgrad", recorder.raw)
    case.check_all("update", recorder.updates)
    case.check_all("after", recorder.after)
    case.check_history(history(solver))
    assert solver.current_step == case.info["current_step_at_end"]


@pytest.mark.parametrize("name", ["solver.prototxt", "solver_h5.prototxt"])
@pytest.mark.parametrize("folder", golden_cases("resume"))
def test_caffe_snapshot_resumes_as_in_caffe(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    case = SolverCase(folder)
    solver = make_solver(folder, case, name)
    suffix = ".h5" if "h5" in name else ""
    solver.restore(next(folder.glob(f"*.solverstate{suffix}")))
    assert solver.iteration == case.info["snapshot_at"]
    assert solver.current_step == case.info["current_step"]
    case.check_history(history(solver), f"history_at_{case.info['snapshot_at']}")
    solver.feed.load_state_dict({"number": case.info["snapshot_at"] * case.info["iter_size"]})
    solver.advance(case.info["iterations"] - case.info["snapshot_at"])
    case.check_final(blobs(solver, solver.net.flat.data))
