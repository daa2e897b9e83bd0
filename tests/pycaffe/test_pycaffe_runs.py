"""Caffe's solvers for Python around their loop: data, test nets, callbacks; and the process."""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
import pytest

import pycaffe as caffe
from prototxt_parser import PrototxtError
from pycaffe import runtime
from solvers import SolverError
from trainer.errors import TrainerError

ROWS = np.arange(14, dtype=np.float32).reshape(7, 2)
NET = """
layer { name: "rows" type: "HDF5Data" top: "x" top: "y"
  hdf5_data_param { source: "files.txt" batch_size: 3 } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.01 lr_policy: "step" gamma: 0.5 stepsize: 4 max_iter: 6
test_iter: 2 test_interval: 3 snapshot_prefix: "snap" snapshot_after_train: false
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with h5py.File("rows.h5", "w") as file:
        file["x"], file["y"] = ROWS, ROWS[:, :1] / 7
    Path("files.txt").write_text("rows.h5\n")
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    return tmp_path


def test_a_data_layer_fetches_when_it_runs() -> None:
    net = caffe.Net("net.prototxt", caffe.TEST)
    x = net.blobs["x"].data
    net.forward()
    np.testing.assert_array_equal(x, ROWS[:3])
    net.forward(start="ip")
    np.testing.assert_array_equal(x, ROWS[:3])
    net.forward(end="rows")
    np.testing.assert_array_equal(x, ROWS[3:6])
    net.forward()
    np.testing.assert_array_equal(x, ROWS[[6, 0, 1]])


def test_a_missing_source_is_refused() -> None:
    Path("net.prototxt").write_text(NET.replace("files.txt", "nowhere.txt"))
    with pytest.raises(TrainerError, match=r"nowhere\.txt"):
        caffe.Net("net.prototxt", caffe.TEST)


def test_a_resumed_run_goes_on_where_the_whole_one_was() -> None:
    whole, part, rest = (caffe.SGDSolver("solver.prototxt") for _ in range(3))
    whole.solve()
    part.step(4)
    part.snapshot()
    view = rest.net.params["ip"][0].data
    rest.solve("snap_iter_4.solverstate")
    assert rest.iter == whole.iter == 6
    np.testing.assert_array_equal(view, whole.net.params["ip"][0].data)


def test_test_nets_have_the_train_nets_parameters() -> None:
    solver = caffe.get_solver("solver.prototxt")
    assert len(solver.test_nets) == 1
    view = solver.test_nets[0].params["ip"][0].data
    solver.step(1)
    assert view.any()
    np.testing.assert_array_equal(view, solver.net.params["ip"][0].data)
    assert solver.test_nets[0].forward()["loss"] > 0


def test_another_net_uses_the_solvers_parameters() -> None:
    solver, net = caffe.SGDSolver("solver.prototxt"), caffe.Net("net.prototxt", caffe.TEST)
    solver.share_weights(net)
    solver.step(1)
    assert net.params["ip"][0].data.any()
    with pytest.raises(PrototxtError, match=r"solver\.share_weights"):
        solver.net.share_with(net)


def test_callbacks_see_and_change_the_gradients() -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    calls: list[str] = []

    def clear() -> None:
        calls.append(f"ready {solver.iter}")
        assert solver.net.params["ip"][0].diff.any()
        solver.net.clear_param_diffs()

    solver.add_callback(lambda: calls.append(f"start {solver.iter}"), clear)
    solver.step(2)
    assert calls == ["start 0", "ready 0", "start 1", "ready 1"]
    assert not solver.net.params["ip"][0].data.any()
    with pytest.raises(TypeError, match="on_gradients_ready"):
        solver.add_callback(clear)


def test_rates_follow_what_is_written() -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    assert solver.lr == pytest.approx(0.01)
    solver.step(4)
    assert solver.lr == pytest.approx(0.005)
    solver.param.base_lr = 0.4
    assert solver.lr == pytest.approx(0.2)
    before = solver.net.params["ip"][1].data.copy()
    solver.net.clear_param_diffs()
    solver.net.params["ip"][1].diff[...] = 3
    solver.apply_update()
    assert solver.iter == 5
    np.testing.assert_allclose(solver.net.params["ip"][1].data, before - 0.6, rtol=1e-6)


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"Could not open file no\.prototxt"):
        caffe.SGDSolver("no.prototxt")
    with pytest.raises(RuntimeError, match=r"Could not open file no\.solverstate"):
        caffe.SGDSolver("solver.prototxt").restore("no.solverstate")
    Path("solver.prototxt").write_text(SOLVER + 'type: "Newton"')
    with pytest.raises(SolverError, match="Newton"):
        caffe.get_solver("solver.prototxt")
    with pytest.raises(PrototxtError, match="no NCCL"):
        caffe.NCCL(None, "uid")


def test_modes_and_counts(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime._process, "warned_of_gpu", False)
    caffe.set_mode_cpu()
    with caplog.at_level(logging.WARNING):
        caffe.set_mode_gpu()
        caffe.set_mode_gpu()
    assert len([line for line in caplog.messages if "computes on the CPU" in line]) == 1
    caffe.set_device(3)
    caffe.set_multiprocess(True)
    assert (caffe.solver_count(), caffe.solver_rank(), caffe.has_nccl()) == (1, 0, False)
    caffe.set_solver_count(4)
    caffe.set_solver_rank(2)
    assert (caffe.solver_count(), caffe.solver_rank()) == (4, 2)
    caffe.set_solver_count(1)
    caffe.set_solver_rank(0)
    assert {"Convolution", "Python", "Input"} <= set(caffe.layer_type_list())
    assert (caffe.TRAIN, caffe.TEST, caffe.__version__) == (0, 1, "1.0.0")


def test_log_lines_look_like_caffes(capsys: pytest.CaptureFixture[str]) -> None:
    caffe.init_log(0)
    try:
        caffe.log("what the script says")
        caffe.init_log(1)
        caffe.log("too little")
    finally:
        caffe.init_log(2, to_stderr=False)
        for name in ("prototxt_parser", "solvers", "trainer", "pycaffe"):
            logging.getLogger(name).setLevel(logging.NOTSET)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("I")
    assert lines[0].endswith("] what the script says")


def test_a_timer_measures() -> None:
    timer = caffe.Timer()
    assert timer.ms == 0
    timer.start()
    timer.stop()
    assert timer.ms > 0
