"""The loop: order, displays, tests, snapshots, resuming, settings."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from fakes import make, open_counting, solver_param

from prototxt_parser import PrototxtError, build_net, load_weights, read_net, save_weights
from prototxt_parser.errors import WriteError
from prototxt_parser.weights import read_caffemodel
from solvers import Action, Callback, Solver, SolverError, policy_curve
from solvers.state_files import read_state, saved_seed

TESTS = " test_iter: 3 test_interval: 5"


def messages(caplog: pytest.LogCaptureFixture, *starts: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith(starts)]


def test_loop_displays_tests_and_ends_as_caffe(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    make(tmp_path, "display: 4 snapshot: 10" + TESTS).solve()
    found = messages(caplog, "Iteration", "Snapshotting solver", "Optimization")
    short = [" ".join(line.replace(",", "").split()[:3]) for line in found]
    tests = [line for line in found if "Testing net" in line]
    assert tests == [f"Iteration {n}, Testing net (#0)" for n in (0, 5, 10, 15, 20)]
    losses = [line for line in found if "loss = " in line]
    assert [int(line.split()[1].rstrip(",")) for line in losses] == [0, 4, 8, 12, 16, 20]
    assert "iter/s" in losses[0]
    assert "iter/s" not in losses[-1]
    # At 20: snapshot inside the loop, then the forward-only display, then the test.
    assert short[-4:] == [
        "Snapshotting solver state",
        "Iteration 20 loss",
        "Iteration 20 Testing",
        "Optimization Done.",
    ]


def test_outputs_are_logged_in_caffes_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    solver = make(tmp_path, "display: 4 test_compute_loss: true" + TESTS)
    solver.test_all()
    lines = messages(caplog, "Test loss", "    Test")
    assert lines[0].startswith("Test loss: ")
    assert lines[1].startswith("    Test net output #0: accuracy = ")
    value = lines[2].split(" = ")[1].split()[0]
    assert lines[2] == f"    Test net output #1: loss = {value} (* 1 = {value} loss)"


def test_smoothed_loss_is_a_running_then_sliding_mean(tmp_path: Path) -> None:
    losses: list[float] = []

    class Keep(Callback):
        def on_iteration(self, solver: Solver, loss: float) -> None:
            losses.append(loss)

    solver = make(tmp_path, "average_loss: 3")
    solver.callbacks.append(Keep())
    for count in range(1, 8):
        solver.advance(1)
        window = losses[-3:]
        assert solver.smoothed_loss == pytest.approx(sum(window) / len(window)), count


@pytest.mark.parametrize("kind", ["BINARYPROTO", "HDF5"])
@pytest.mark.parametrize("rule", ['type: "SGD"', 'type: "Adam"', 'type: "AdaDelta"'])
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    tmp_path: Path, kind: str, rule: str
) -> None:
    extra = f"{rule} iter_size: 2 average_loss: 4 snapshot_format: {kind} {TESTS}"
    whole = make(tmp_path, extra)
    whole.advance(9)
    state = whole.snapshot()
    whole.advance(11)
    resumed = make(tmp_path, extra + " random_seed: 99")
    resumed.restore(state)
    assert resumed.iteration == 9
    resumed.advance(11)
    assert torch.equal(whole.net.flat.data, resumed.net.flat.data)
    for ours, theirs in zip(whole.history, resumed.history, strict=True):
        assert torch.equal(ours, theirs)
    assert whole.smoothed_loss == resumed.smoothed_loss
    assert whole.test_all() == resumed.test_all()
    assert saved_seed(state) == 11


def test_a_state_of_caffes_own_resumes_from_the_first_batch(tmp_path: Path) -> None:
    solver = make(tmp_path)
    solver.advance(4)
    state = solver.snapshot()
    state.with_name("tiny_iter_4.resume.json").unlink()
    resumed = make(tmp_path)
    resumed.restore(state)
    assert resumed.iteration == 4
    assert resumed.current_step == 0
    assert resumed.feed.state_dict() == {"position": 0}
    assert torch.equal(resumed.net.flat.data, solver.net.flat.data)
    assert saved_seed(state) is None


def test_snapshot_holds_what_caffe_would_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    param = solver_param(tmp_path)
    param.snapshot_prefix = "short"
    solver = Solver(param, open_counting)
    solver.advance(8)
    state = read_state(solver.snapshot())
    assert (state.iteration, state.current_step) == (8, 1)
    assert state.learned_net == "short_iter_8.caffemodel"
    shapes = [tuple(blob.shape) for blob in state.history]
    assert shapes == [(7, 4), (7,), (7,), (7,), (1,), (3, 7), (3,)]
    model = read_caffemodel("short_iter_8.caffemodel")
    assert [layer.name for layer in model.layer] == [step.param.name for step in solver.net.steps]
    assert [
        [spec.lr_mult for spec in layer.param] for layer in model.layer if layer.name == "norm"
    ] == [[0, 0, 0]]
    assert all(layer.phase == 0 and layer.HasField("phase") for layer in model.layer)


def test_moved_snapshot_finds_its_model_beside_the_state(tmp_path: Path) -> None:
    solver = make(tmp_path)
    solver.advance(2)
    solver.snapshot()
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in tmp_path.glob("tiny_iter_2.*"):
        path.rename(moved / path.name)
    resumed = make(tmp_path)
    resumed.restore(moved / "tiny_iter_2.solverstate")
    assert torch.equal(resumed.net.flat.data, solver.net.flat.data)


def test_state_of_another_solver_or_net_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    solver = make(tmp_path, 'type: "Adam"')
    solver.advance(2)
    state = solver.snapshot()
    other = make(tmp_path)
    before = other.net.flat.data.clone()
    with pytest.raises(
        SolverError,
        match="Incorrect length of history blobs: SGD on this net needs 7, the file has 14",
    ):
        other.restore(state)
    assert torch.equal(other.net.flat.data, before)


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
@pytest.mark.parametrize("suffix", [".caffemodel", ".solverstate", ".resume.json"])
def test_damaged_snapshot_files_are_refused(tmp_path: Path, suffix: str, cut: int) -> None:
    solver = make(tmp_path)
    solver.advance(2)
    state = solver.snapshot()
    path = tmp_path / f"tiny_iter_2{suffix}"
    path.write_bytes(path.read_bytes()[:cut])
    fresh = make(tmp_path)
    with pytest.raises((SolverError, PrototxtError), match=r"tiny_iter_2\."):
        fresh.restore(state)


def test_weights_round_trip_in_both_formats(tmp_path: Path) -> None:
    for kind, suffix in (("BINARYPROTO", ""), ("HDF5", ".h5")):
        solver = make(tmp_path, f"snapshot_format: {kind} snapshot_diff: true")
        solver.advance(3)
        solver.snapshot()
        net = build_net(
            read_net(tmp_path / "tiny.prototxt"), "TEST", input_shapes=solver.feed.shapes
        )
        load_weights(net, tmp_path / f"tiny_iter_3.caffemodel{suffix}")
        assert torch.equal(net.flat.data, solver.net.flat.data)


def test_mismatched_weights_leave_the_net_unchanged(tmp_path: Path) -> None:
    solver = make(tmp_path)
    save_weights(solver.net, tmp_path / "w.caffemodel")
    text = (tmp_path / "tiny.prototxt").read_text().replace("num_output: 3", "num_output: 6")
    (tmp_path / "other.prototxt").write_text(text)
    net = build_net(read_net(tmp_path / "other.prototxt"), "TRAIN", input_shapes=solver.feed.shapes)
    before = net.flat.data.clone()
    with pytest.raises(
        PrototxtError,
        match=r"layer 'score'; shape mismatch.*3 7 \(21\).*6 7 \(42\)",
    ):
        load_weights(net, tmp_path / "w.caffemodel")
    assert torch.equal(net.flat.data, before)


def test_stop_and_snapshot_requests_are_obeyed(tmp_path: Path) -> None:
    solver = make(tmp_path)
    actions = iter([Action.NONE, Action.SNAPSHOT, Action.NONE, Action.STOP])
    solver.poll = lambda: next(actions)
    solver.solve()
    assert solver.iteration == 4
    assert solver.stopped_early
    assert sorted(p.name for p in tmp_path.glob("*.solverstate")) == [
        "tiny_iter_2.solverstate",
        "tiny_iter_4.solverstate",
    ]


REFUSED = {
    'lr_policy: "linear"': "Unknown learning rate policy: linear; lr_policy must be one of",
    "stepsize: 0": "stepsize must be > 0; received 0",
    'lr_policy: "poly" max_iter: 0': "lr_policy poly: max_iter must be > 0; received 0",
    "gamma: -1": "gamma must be >= 0; received -1",
    'type: "Adm"': "Unknown solver type: Adm (known types: AdaDelta, AdaGrad",
    'type: "AdaGrad"': "Momentum cannot be used with AdaGrad.",
    'type: "RMSProp" momentum: 0 rms_decay: 1': "rms_decay must lie in [0, 1); received 1",
    'regularization_type: "L3"': "Unknown regularization type: L3",
    "average_loss: 0": "average_loss must be >= 1; received 0",
    "iter_size: 0": "iter_size must be >= 1; received 0",
    "test_iter: 3": "test_interval must be > 0 when there are test nets; received 0",
    "test_iter: 3 test_interval: 1 test_state { } test_state { }": (
        "test_state must be unspecified or specified once per test net"
    ),
    'train_net: "x"': "not contain more than one of these fields specifying a train_net",
    'snapshot: 1 snapshot_prefix: "/no/where"': "Cannot write to snapshot prefix '/no/where'",
}


@pytest.mark.parametrize("extra", REFUSED)
def test_wrong_settings_are_refused(tmp_path: Path, extra: str) -> None:
    with pytest.raises(SolverError) as caught:
        make(tmp_path, extra)
    assert REFUSED[extra] in str(caught.value)


def test_policy_curve_shows_rates_without_training(tmp_path: Path) -> None:
    param = solver_param(tmp_path, 'lr_policy: "multistep" stepvalue: 2 stepvalue: 3')
    assert policy_curve(param, 5) == pytest.approx([0.05, 0.05, 0.025, 0.0125, 0.0125])


def test_rate_follows_the_global_progress_with_a_stride(tmp_path: Path) -> None:
    solver = Solver(solver_param(tmp_path), open_counting, lr_stride=3)
    rates = []
    for _ in range(5):
        rates.append(solver.lr)
        solver.advance(1)
    assert rates == pytest.approx([0.05, 0.05, 0.025, 0.025, 0.0125])


def test_full_disk_keeps_the_previous_snapshot(tmp_path: Path) -> None:
    """A process that may write only small files stands for a disk that is full."""
    script = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from fakes import make
        from prototxt_parser.errors import WriteError
        solver = make(Path(sys.argv[1]))
        solver.advance(1); solver.snapshot()
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        solver.advance(1)
        try:
            solver.snapshot()
        except WriteError as error:
            print(error)
        """)
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{tests}:{tests.parents[1]}"}
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "tiny_iter_2.caffemodel: cannot write: File too large" in result.stdout
    assert "What was there before is unchanged" in result.stdout
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [
        "tiny.prototxt",
        "tiny_iter_1.caffemodel",
        "tiny_iter_1.resume.json",
        "tiny_iter_1.solverstate",
    ]
    make(tmp_path).restore(tmp_path / "tiny_iter_1.solverstate")


def test_kill_while_writing_snapshots_leaves_whole_ones(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from fakes import make
        solver = make(Path(sys.argv[1]))
        print("ready", flush=True)
        while True:
            solver.iteration = 1  # the same files again and again
            solver.snapshot()
        """)
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{tests}:{tests.parents[1]}"}
    for delay_s in (0.05, 0.11, 0.173):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], env=environment, stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout is not None
            process.stdout.readline()
            while not (tmp_path / "tiny_iter_1.solverstate").exists():
                time.sleep(0.01)
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
        fresh = make(tmp_path)
        fresh.restore(tmp_path / "tiny_iter_1.solverstate")
        assert json.loads((tmp_path / "tiny_iter_1.resume.json").read_text())["iteration"] == 1


def test_write_errors_are_write_errors(tmp_path: Path) -> None:
    net = make(tmp_path).net
    with pytest.raises(WriteError, match=r"cannot write: No such file or directory"):
        save_weights(net, tmp_path / "missing" / "w.caffemodel")


def test_debug_info_prints_every_layer_on_display_iterations(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    make(tmp_path, "debug_info: true display: 2").advance(2)
    lines = [re.sub(r": \S+$", "", line) for line in messages(caplog, "    [")]
    assert lines[:6] == [
        "    [Forward] Layer feed, top blob x data",
        "    [Forward] Layer feed, top blob y data",
        "    [Forward] Layer hid, top blob hid data",
        "    [Forward] Layer hid, param blob 0 data",
        "    [Forward] Layer hid, param blob 1 data",
        "    [Forward] Layer norm, top blob hid data",
    ]
    backward = [line for line in lines if "[Backward] Layer" in line]
    assert backward[:2] == [
        "    [Backward] Layer loss, bottom blob score diff",
        "    [Backward] Layer score, bottom blob hid diff",
    ]
    assert backward[-1] == "    [Backward] Layer hid, param blob 1 diff"
    assert len(messages(caplog, "    [Backward] All net params (data, diff): L1 norm = (")) == 1


def test_state_that_a_recurrent_layer_carries_is_resumed(tmp_path: Path) -> None:
    net = """
    layer { name: "feed" type: "Data" top: "x" top: "y" }
    layer { name: "steps" type: "Reshape" bottom: "x" top: "steps"
      reshape_param { shape { dim: 5 dim: 1 dim: 4 } } }
    layer { name: "marks" type: "Reshape" bottom: "y" top: "marks"
      reshape_param { shape { dim: 5 dim: 1 } } }
    layer { name: "on" type: "Power" bottom: "marks" top: "cont" power_param { power: 0 } }
    layer { name: "memory" type: "LSTM" bottom: "steps" bottom: "cont" top: "h"
      recurrent_param { num_output: 3 weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "h" bottom: "target" }
    """
    target = 'layer { name: "t" type: "Power" bottom: "h" top: "target" power_param { shift: 1 } }'
    net = net.replace('layer { name: "loss"', target + ' layer { name: "loss"')

    def solver() -> Solver:
        param = solver_param(tmp_path)
        (tmp_path / "tiny.prototxt").write_text(net)
        return Solver(param, open_counting)

    whole = solver()
    whole.advance(3)
    state = whole.snapshot()
    (carried, _) = whole.net.carried_states.values()
    assert bool((carried != 0).any())
    whole.advance(4)
    resumed = solver()
    resumed.restore(state)
    assert torch.equal(next(iter(resumed.net.carried_states.values())), carried)
    resumed.advance(4)
    assert torch.equal(whole.net.flat.data, resumed.net.flat.data)


def test_looking_at_the_rate_neither_moves_nor_logs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    solver = make(tmp_path, 'lr_policy: "multistep" stepvalue: 2 stepvalue: 2')
    solver.advance(2)
    assert [solver.lr, solver.lr, solver.current_step] == pytest.approx([0.025, 0.025, 0])
    solver.advance(2)
    assert messages(caplog, "MultiStep") == [
        "MultiStep Status: Iteration 2, step = 1",
        "MultiStep Status: Iteration 3, step = 2",
    ]
