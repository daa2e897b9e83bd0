"""Where an update in the manner of torch.optim would give other numbers than Caffe."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from fakes import NET, make, open_counting

from prototxt_parser.flat_parameters import FlatParameters, Slot
from prototxt_parser.proto.caffe_pb2 import SolverParameter
from prototxt_parser.text import parse_text
from solvers import Callback, Solver
from solvers.log_format import output_lines
from solvers.lr_policies import LearningRate
from solvers.state_files import read_state
from solvers.updater import Updater


def updater_of(text: str, *values: list[float], **multipliers: list[float]) -> Updater:
    """Return an updater of one blob for each list of values."""
    blobs = [torch.nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in values]
    rates = multipliers.get("lr_mult", [1.0] * len(blobs))
    decays = multipliers.get("decay_mult", [1.0] * len(blobs))
    flat = FlatParameters(
        [
            Slot("layer", index, (blob,), rate, decay, is_statistic=False)
            for index, (blob, rate, decay) in enumerate(zip(blobs, rates, decays, strict=True))
        ]
    )
    return Updater(parse_text(text, SolverParameter(), "solver"), flat)


def update(
    updater: Updater, gradients: list[float], rate: float, iteration: int = 0
) -> list[float]:
    """Return what an update subtracts."""
    flat = updater._flat
    flat.grad.copy_(torch.tensor(gradients))
    updater.update(rate, iteration)
    return flat.grad.tolist()


def test_the_rate_is_inside_the_momentum() -> None:
    sgd = updater_of('type: "SGD" momentum: 0.75', [0.0])
    assert update(sgd, [2.0], 0.5) == [1.0]
    # The old velocity keeps the rate it was made with: 0.75 · 1 + 0.125 · 2, not 0.125 · 3.5.
    assert update(sgd, [2.0], 0.125) == [1.0]
    assert sgd.history[0].tolist() == [1.0]


def test_nesterov_has_the_rate_inside_too() -> None:
    nesterov = updater_of('type: "Nesterov" momentum: 0.5', [0.0])
    assert update(nesterov, [2.0], 0.5) == [1.5]
    # h = 0.5 · 1 + 0.125 · 2 = 0.75; 1.5 · 0.75 - 0.5 · 1.
    assert update(nesterov, [2.0], 0.125) == [0.625]


def test_the_multiplier_of_the_rate_is_inside_the_momentum_too() -> None:
    sgd = updater_of('type: "SGD" momentum: 0.5', [0.0], [0.0], lr_mult=[4.0, 0.0])
    assert update(sgd, [1.0, 1.0], 0.5) == [2.0, 0.0]
    assert [slot.tolist() for slot in sgd.history] == [[2.0, 0.0]]


def test_decay_comes_after_clipping_and_averaging_and_before_momentum() -> None:
    sgd = updater_of(
        'type: "SGD" momentum: 0.5 weight_decay: 0.5 clip_gradients: 5 iter_size: 2',
        [8.0, 16.0],
        [4.0],
        decay_mult=[1.0, 0.0],
    )
    # (6, 8, 0) has the norm 10: half of it, half of that for the two passes, then 0.5 · w.
    assert update(sgd, [6.0, 8.0, 0.0], 1) == pytest.approx([1.5 + 4, 2 + 8, 0])
    assert sgd.history[0].tolist() == pytest.approx([5.5, 10, 0])


@pytest.mark.parametrize("rule", ["AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_decay_is_part_of_the_gradient_that_adaptive_rules_see(rule: str) -> None:
    text = f'type: "{rule}" weight_decay: 0.5 {"momentum: 0.9" if rule[1] == "d" else ""}'
    text = text.replace(" momentum: 0.9", "") if rule == "AdaGrad" else text
    decayed, plain = updater_of(text, [4.0]), updater_of(text, [0.0])
    assert update(decayed, [1.0], 0.25) == update(plain, [3.0], 0.25)
    for ours, theirs in zip(decayed.history, plain.history, strict=True):
        assert torch.equal(ours, theirs)


def test_clipping_scales_by_the_quotient_of_the_norms_exactly() -> None:
    sgd = updater_of('type: "SGD" clip_gradients: 1e-7', [0.0], [0.0])
    # With torch's 1e-6 in the denominator half of this would be left.
    assert update(sgd, [6e-7, 8e-7], 1) == pytest.approx([6e-8, 8e-8], rel=1e-6)
    sgd = updater_of('type: "SGD" clip_gradients: 1', [0.0])
    assert update(sgd, [1.0], 1) == [1.0]


def test_delta_stands_outside_the_root_of_adagrad_and_rmsprop() -> None:
    adagrad = updater_of('type: "AdaGrad" delta: 2', [0.0])
    assert update(adagrad, [3.0], 10) == [6.0]
    rmsprop = updater_of('type: "RMSProp" delta: 2 rms_decay: 0.75', [0.0])
    assert update(rmsprop, [4.0], 10) == [10.0]


def test_adadelta_has_delta_inside_and_its_rate_at_the_end() -> None:
    adadelta = updater_of('type: "AdaDelta" delta: 1 momentum: 0.75', [0.0])
    # h = 0.25 · 12 = 3; v = √12 · √(1 / 4) = √3; k = 0.25 · 3.
    assert update(adadelta, [math.sqrt(12)], 10) == pytest.approx([10 * math.sqrt(3)])
    assert [slot.item() for slot in adadelta.history] == pytest.approx([3, 0.75])


def test_adam_adds_delta_to_the_uncorrected_root_and_counts_by_the_iteration() -> None:
    adam = updater_of('type: "Adam" delta: 2 momentum: 0.5 momentum2: 0.75', [0.0])
    # m = 0.5 · 4, v = 0.25 · 16, c = √(1 - 0.75³) / (1 - 0.5³) at iteration 2.
    correction = math.sqrt(1 - 0.75**3) / (1 - 0.5**3)
    assert update(adam, [4.0], 10, iteration=2) == pytest.approx([10 * correction * 2 / (2 + 2)])


def test_adam_without_momentum_follows_the_last_gradient() -> None:
    adam = updater_of('type: "Adam" delta: 0', [0.0])
    update(adam, [3.0], 1, iteration=0)
    update(adam, [-1.0], 1, iteration=1)
    assert adam.history[0].item() == -1


def test_defaults_are_caffes() -> None:
    param = SolverParameter()
    assert (param.type, param.momentum, param.base_lr, param.weight_decay) == ("SGD", 0, 0, 0)
    assert (param.delta, param.rms_decay, param.momentum2) == pytest.approx((1e-8, 0.99, 0.999))


def test_multistep_passes_one_boundary_at_a_time() -> None:
    text = 'base_lr: 8 lr_policy: "multistep" gamma: 0.5 stepvalue: [2, 2, 2, 4]'
    rate = LearningRate(parse_text(text, SolverParameter(), "solver"))
    assert [rate.at(iteration) for iteration in range(7)] == [8, 8, 4, 2, 1, 0.5, 0.5]
    assert rate.current_step == 4


@pytest.mark.parametrize(
    "policy",
    [
        'lr_policy: "exp" gamma: 10',
        'lr_policy: "step" gamma: 10 stepsize: 1',
        'lr_policy: "inv" gamma: 10 power: -100',
        'lr_policy: "poly" max_iter: 400 power: -1',
    ],
)
def test_a_rate_without_bounds_becomes_infinite_as_in_caffe(policy: str) -> None:
    rate = LearningRate(parse_text(f"base_lr: 1 {policy}", SolverParameter(), "solver"))
    assert rate.at(400) == math.inf


class TestTimes(Callback):
    """Keeps when tests came, and with which parameters."""

    __test__ = False  # not a test case, whatever its name

    def __init__(self) -> None:
        self.seen: list[tuple[int, torch.Tensor]] = []

    def on_test(self, solver: Solver, results: Sequence[dict[str, float]]) -> None:
        del results
        self.seen.append((solver.iteration, solver.net.flat.data.clone()))


@pytest.mark.parametrize(("initial", "tested"), [("true", [0, 2, 4]), ("false", [2, 4])])
def test_a_test_comes_before_the_update_of_its_iteration(
    tmp_path: Path, initial: str, tested: list[int]
) -> None:
    solver = make(tmp_path, f"test_iter: 2 test_interval: 2 test_initialization: {initial}")
    times, states = TestTimes(), []
    solver.callbacks.append(times)
    for _ in range(5):
        states.append(solver.net.flat.data.clone())
        solver.advance(1)
    assert [iteration for iteration, _ in times.seen] == tested
    assert all(torch.equal(state, states[iteration]) for iteration, state in times.seen)


@pytest.mark.parametrize(
    ("settings", "forwards"),
    [
        ("max_iter: 3", 3),
        ("max_iter: 3 iter_size: 2", 6),
        ("max_iter: 4 display: 2", 5),  # the display that ends a run is a forward pass more
        ("max_iter: 3 display: 2", 3),
        ("max_iter: 3 test_iter: 2 test_interval: 1", 3),
    ],
)
def test_every_training_forward_moves_the_batch_norm_statistics(
    tmp_path: Path, settings: str, forwards: int
) -> None:
    solver = make(tmp_path, settings + " snapshot_after_train: false")
    solver.solve()
    factor = solver.net.layers["norm"].scale_factor.item()
    assert factor == pytest.approx(sum(0.999**n for n in range(forwards)), rel=1e-6)
    assert solver.feed.position == forwards


def test_a_blob_that_does_not_learn_keeps_its_place_in_the_history(tmp_path: Path) -> None:
    solver = make(tmp_path)
    (tmp_path / "tiny.prototxt").write_text(
        NET.replace("param { lr_mult: 1 }", "param { lr_mult: 0 decay_mult: 0 }")
    )
    frozen = Solver(solver.param, open_counting)
    before = frozen.net.layers["hid"].weight.clone()
    frozen.advance(2)
    state = read_state(frozen.snapshot())
    assert [tuple(blob.shape) for blob in state.history[:2]] == [(7, 4), (7,)]
    assert not state.history[0].any()
    assert state.history[1].any()
    assert torch.equal(frozen.net.layers["hid"].weight, before)


def test_log_lines_have_six_digits_and_fit_caffes_parsers() -> None:
    values = {"loss": torch.tensor([0.123456789, 1234567.0]), "top/5": torch.tensor(0.00001)}
    lines = list(output_lines("Test", values, {"loss": 0.5}))
    assert lines == [
        "    Test net output #0: loss = 0.123457 (* 0.5 = 0.0617284 loss)",
        "    Test net output #1: loss = 1.23457e+06 (* 0.5 = 617284 loss)",
        "    Test net output #2: top/5 = 1e-05",
    ]
    pattern = re.compile(r"Test net output #(\d+): (\S+) = ([\.\deE+-]+)")
    found = [pattern.search(line) for line in lines]
    assert [match[2] for match in found if match] == ["loss", "loss", "top/5"]
