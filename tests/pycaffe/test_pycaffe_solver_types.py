"""Which rule updates: that of the class, or, with get_solver, that which the file names."""

from __future__ import annotations

from pathlib import Path

import pytest

import pycaffe as caffe

NET = """
layer { name: "data" type: "DummyData" top: "x" top: "goal"
  dummy_data_param { shape { dim: 2 dim: 1 } data_filler { value: 4 } data_filler { value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 1 bias_term: false } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "goal" top: "loss" }
"""
# The weight starts at 0, so its gradient is 4 · (0 - 1) = -4.
STEPS = {"SGD": 2.0, "Nesterov": 2.0, "AdaGrad": 0.5, "RMSProp": 1.0, "Adam": 0.5}


@pytest.fixture
def solver_file(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    path = tmp_path / "solver.prototxt"
    path.write_text(
        f'net: "{tmp_path / "net.prototxt"}" type: "AdaGrad" base_lr: 0.5 lr_policy: "fixed" '
        "delta: 1e-12 rms_decay: 0.75 max_iter: 3"
    )
    return path


@pytest.mark.parametrize("name", STEPS)
def test_a_solver_class_ignores_the_type_in_the_file(solver_file: Path, name: str) -> None:
    solver = getattr(caffe, f"{name}Solver")(str(solver_file))
    assert solver.type == name
    solver.step(1)
    assert solver.net.params["ip"][0].data.item() == pytest.approx(STEPS[name], rel=1e-5)


def test_get_solver_takes_the_type_in_the_file(solver_file: Path) -> None:
    solver = caffe.get_solver(str(solver_file))
    assert isinstance(solver, caffe.AdaGradSolver)
    solver.step(1)
    assert solver.net.params["ip"][0].data.item() == pytest.approx(STEPS["AdaGrad"], rel=1e-5)
