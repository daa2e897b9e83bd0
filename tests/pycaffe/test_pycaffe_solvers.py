"""The recorded solvers and snapshots, replayed through the interface of the recording."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import pycaffe as caffe
from golden_cases import golden_cases
from solver_case import SolverCase


def blobs(solver: caffe.SGDSolver, case: SolverCase, kind: str) -> list[np.ndarray]:
    params = solver.net.params
    return [getattr(params[name][i], kind).copy() for name, i in case.info["params"]]


def write_initial(solver: caffe.SGDSolver, case: SolverCase) -> None:
    for (layer, index), value in case.initial().items():
        solver.net.params[layer][index].data[...] = value


class Feeder:
    """Writes the next recorded batch into the input blobs before the first layer runs."""

    def __init__(self, net: caffe.Net, case: SolverCase, number: int = 0) -> None:
        self.net, self.case, self.number = net, case, number
        net.before_forward(self)

    def __call__(self, layer: int) -> None:
        if layer == 0:
            for name, value in self.case.batch(self.number).items():
                self.net.blobs[name].data[...] = value
            self.number += 1


@pytest.mark.parametrize("folder", golden_cases("solvers"))
def test_steps_equal_caffes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    case = SolverCase(folder)
    solver = caffe.get_solver("solver.prototxt")
    write_initial(solver, case)
    Feeder(solver.net, case)
    raw: dict[int, list[np.ndarray]] = {}
    solver.add_callback(
        lambda: None, lambda: raw.update({solver.iter: blobs(solver, case, "diff")})
    )
    rates, updates, after = [], {}, {}
    for _ in range(case.info["iterations"]):
        rates.append(solver.lr)
        solver.step(1)
        updates[solver.iter] = blobs(solver, case, "diff")
        after[solver.iter] = blobs(solver, case, "data")
    case.check_rates(rates)
    case.check_all("rawgrad", raw)
    case.check_all("update", updates)
    case.check_all("after", after)


@pytest.mark.parametrize("folder", golden_cases("solvers"))
def test_passes_by_hand_equal_caffes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    case = SolverCase(folder)
    solver = caffe.get_solver("solver.prototxt")
    write_initial(solver, case)
    losses, after = [], {}
    passes, net = case.info["iter_size"], solver.net
    for iteration in range(case.info["iterations"]):
        net.clear_param_diffs()
        for number in range(iteration * passes, (iteration + 1) * passes):
            for name, value in case.batch(number).items():
                net.blobs[name].data[...] = value
            losses.append(net._forward(0, len(net.layers) - 1))
            net.backward()
        solver.apply_update()
        after[solver.iter] = blobs(solver, case, "data")
    case.check_losses(losses, "loss_each_pass")
    case.check_all("after", after)


@pytest.mark.parametrize("name", ["solver.prototxt", "solver_h5.prototxt"])
@pytest.mark.parametrize("folder", golden_cases("resume"))
def test_snapshots_of_caffe_resume(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    case = SolverCase(folder)
    solver = caffe.get_solver(name)
    suffix = ".h5" if "h5" in name else ""
    live = solver.net.params[case.info["params"][0][0]][0].data
    solver.restore(str(next(folder.glob(f"*.solverstate{suffix}"))))
    assert solver.iter == case.info["snapshot_at"]
    Feeder(solver.net, case, solver.iter * case.info["iter_size"])
    solver.step(case.info["iterations"] - solver.iter)
    final = blobs(solver, case, "data")
    case.check_final(final)
    np.testing.assert_array_equal(live, final[0])


@pytest.mark.parametrize("folder", golden_cases("resume")[:2])
def test_a_snapshot_of_ours_resumes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("net.prototxt", "solver.prototxt"):
        shutil.copy(folder / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    case = SolverCase(folder)
    first = caffe.get_solver("solver.prototxt")
    write_initial(first, case)
    Feeder(first.net, case)
    first.step(case.info["snapshot_at"])
    first.snapshot()
    state = next(tmp_path.glob("*.solverstate"))
    first.step(case.info["iterations"] - first.iter)
    second = caffe.get_solver("solver.prototxt")
    Feeder(second.net, case, case.info["snapshot_at"] * case.info["iter_size"])
    second.param.max_iter = case.info["iterations"]
    second.param.display = 0  # Caffe ends with a forward pass for the display, past the batches
    second.solve(str(state))
    assert second.iter == first.iter
    for mine, other in zip(blobs(first, case, "data"), blobs(second, case, "data"), strict=True):
        np.testing.assert_array_equal(mine, other)
