"""The arithmetic of the exchanges, the strategies over it, and their options."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prototxt_parser import PrototxtError
from prototxt_parser.flat_parameters import Segment
from prototxt_parser.proto.caffe_pb2 import SolverParameter
from trainer.errors import UsageError
from trainer.links import Move, Pull
from trainer.strategies import (
    AsysgOptions,
    CenterSettings,
    DeepSpark,
    DeepSparkOptions,
    DilocoOptions,
    DownpourOptions,
    Easgd,
    EasgdOptions,
    LocalOptions,
    Options,
    Phase,
    Replica,
    SparkNet,
    SparkNetOptions,
    Strategy,
    Sync,
    get_strategy,
    options_from_conf,
    register_strategy,
    strategy_names,
)
from trainer.strategies.arithmetic import (
    Layout,
    adagrad_,
    elastic_center_,
    elastic_worker_,
    mean_,
    outer_nesterov_,
    step_decay,
    subtract_,
)

NAN = float("nan")
CONF = """
period: 50  moving_rate: 0.25
decay_rate: 0.5 decay_step: 100 decay_limit: 3
server_factor: 2 factor_decay_rate: 0.75 factor_decay_step: 200 factor_decay_limit: 4
"""


def segment(offset: int, size: int, *, is_statistic: bool) -> Segment:
    return Segment("layer", 0, offset, size, (size,), 1.0, 1.0, is_statistic)


def replica(parameters: Tensor, layout: Layout, iteration: int = 10) -> Replica:
    count = torch.arange(len(parameters)).float()
    return Replica(parameters, 10 * count, [count.clone()], layout, iteration)


def test_layout_joins_neighbours_and_keeps_statistics_apart() -> None:
    kinds = [(0, 3, False), (3, 2, False), (5, 4, True), (9, 1, True), (10, 6, False)]
    layout = Layout.of([segment(o, s, is_statistic=k) for o, s, k in kinds])
    assert layout == Layout((slice(0, 5), slice(10, 16)), (slice(5, 10),))


def test_mean_is_the_same_unweighted_mean_everywhere() -> None:
    tensors = [torch.tensor([1.0, 2.0]), torch.tensor([4.0, 0.0]), torch.tensor([7.0, 1.0])]
    mean_(tensors)
    for tensor in tensors:
        assert tensor.tolist() == [4.0, 1.0]


def test_elastic_steps_move_worker_and_centre_towards_each_other() -> None:
    worker, center = torch.tensor([1.0, 8.0]), torch.tensor([5.0, 0.0])
    before = center.clone()
    elastic_center_(center, worker, 0.5 * 0.5)
    elastic_worker_(worker, before, 0.5)
    assert worker.tolist() == [3.0, 4.0]
    assert center.tolist() == [4.0, 2.0]


@pytest.mark.parametrize(
    ("step", "limit", "iteration", "expected"),
    [
        (-1, -1, 1000, 8.0),
        (0, -1, 1000, 8.0),
        (100, -1, 99, 8.0),
        (100, -1, 100, 4.0),
        (100, -1, 499, 0.5),
        (100, 2, 499, 2.0),
        (100, 0, 499, 8.0),
    ],
)
def test_step_decay(step: int, limit: int, iteration: int, expected: float) -> None:
    assert step_decay(8.0, 0.5, step, limit, iteration) == expected


def test_steps_of_the_centre() -> None:
    center = torch.tensor([1.0, 8.0])
    subtract_(center, torch.tensor([2.0, -4.0]), 0.5)
    assert center.tolist() == [0.0, 10.0]
    squares = torch.tensor([9.0, 0.0])
    adagrad_(center, squares, torch.tensor([4.0, 0.0]), 0.5)
    assert center.tolist() == pytest.approx([-0.4, 10.0])
    assert squares.tolist() == [25.0, 0.0]


def test_outer_momentum_is_nesterovs() -> None:
    """The same numbers as torch.optim.SGD with the difference to the mean as its gradient."""
    center, velocity = torch.tensor([1.0, 8.0, -3.0]), torch.zeros(3)
    parameter = torch.nn.Parameter(center.clone())
    optimizer = torch.optim.SGD([parameter], lr=0.7, momentum=0.9, nesterov=True)
    for step in range(4):
        mean = torch.tensor([0.5, -2.0, step])
        parameter.grad = parameter.detach() - mean
        optimizer.step()
        outer_nesterov_(center, velocity, mean, 0.7, 0.9)
        torch.testing.assert_close(center, parameter.detach(), rtol=1e-6, atol=1e-6)


class FakeGroup:
    """Averages with one other worker, which holds sevens."""

    size = 2

    def mean_(self, tensor: Tensor) -> None:
        tensor.add_(7).div_(2)


@pytest.mark.parametrize(
    ("momentum", "history"),
    [("keep", [0, 1, 2]), ("reset", [0, 0, 0]), ("average", [3.5, 4, 4.5])],
)
def test_sparknet_averages_every_blob(momentum: str, history: list[float]) -> None:
    own = replica(torch.tensor([1.0, 3.0, 5.0]), Layout((slice(0, 2),), (slice(2, 3),)))
    assert SparkNet(SparkNetOptions(momentum_at_sync=momentum)).exchange(own, FakeGroup()) == 0
    assert own.parameters.tolist() == [4.0, 5.0, 6.0]
    assert own.history[0].tolist() == history


def test_sync_averages_gradients_and_statistics_in_one_message() -> None:
    own = replica(torch.tensor([1.0, 3.0, 5.0]), Layout((slice(0, 2),), (slice(2, 3),)))
    assert Sync(Options()).exchange(own, FakeGroup()) == 0
    assert own.update.tolist() == [3.5, 8.5, 0.0]
    assert own.parameters.tolist() == [1.0, 3.0, 6.0]


@pytest.mark.parametrize(("beta", "center"), [(-1.0, [1.8, 3.6]), (0.5, [3.0, 4.5])])
def test_easgd_pulls_workers_and_centre_at_each_other(beta: float, center: list[float]) -> None:
    """With α = 0.1 and two workers β is 0.2 unless given; the mean of the weights is (5, 6)."""
    layout = Layout((slice(0, 2),), (slice(2, 3),))
    strategy = Easgd(EasgdOptions(center_rate=beta))
    strategy.start(replica(torch.tensor([1.0, 3.0, 5.0]), layout), FakeGroup())
    own = replica(torch.tensor([3.0, 5.0, 5.0]), layout)
    strategy.exchange(own, FakeGroup())
    assert own.parameters[:2].tolist() == pytest.approx([2.8, 4.8])
    assert strategy.model(own)[:2].tolist() == pytest.approx(center)
    assert strategy.model(own)[2] == own.parameters[2] == 6.0


def test_eamsgd_changes_the_solver_of_the_workers() -> None:
    param = SolverParameter(type="SGD", momentum=0.5)
    Easgd(EasgdOptions()).adapt(param)
    assert (param.type, param.momentum) == ("SGD", 0.5)
    eamsgd = Easgd(EasgdOptions(nesterov_momentum=0.75))
    eamsgd.adapt(param)
    assert (param.type, param.momentum) == ("Nesterov", 0.75)
    with pytest.raises(UsageError, match="expected a solver of type SGD or Nesterov; received Ad"):
        eamsgd.adapt(SolverParameter(type="AdaGrad"))


class FakeCenter:
    """A centre of tens that remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[float], Move, int]] = []

    def exchange(
        self, sent: Tensor, move: Move, iteration: int, *, is_answered: bool = True
    ) -> Pull:
        assert is_answered
        self.calls.append((sent.tolist(), move, iteration))
        return Pull(torch.full_like(sent, 10), 3)

    def fetch(self) -> Tensor:
        raise AssertionError

    def shared(self) -> Tensor:
        raise AssertionError


def test_deepspark_sends_its_weights_then_moves_all_but_the_statistics() -> None:
    center = FakeCenter()
    own = replica(torch.tensor([2.0, 4.0, 6.0]), Layout((slice(0, 2),), (slice(2, 3),)))
    options = DeepSparkOptions(moving_rate=0.25, server_factor=0.5)
    assert DeepSpark(options).exchange(own, center) == 3
    assert center.calls == [([2.0, 4.0, 6.0], Move("elastic", 0.125), 10)]
    assert own.parameters.tolist() == [4.0, 5.5, 6.0]
    assert own.history[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("iteration", "rates"),
    [(0, (0.25, 0.5)), (100, (0.125, 0.25)), (200, (0.0625, 0.09375)), (5000, None)],
)
def test_deepspark_rates_decay(
    tmp_path: Path, iteration: int, rates: tuple[float, float] | None
) -> None:
    path = tmp_path / "conf.prototxt"
    path.write_text(CONF)
    limit = (0.25 * 0.5**3, 0.25 * 0.5**3 * 2 * 0.75**4)
    assert DeepSpark(options_from_conf(path)).rates(iteration) == pytest.approx(rates or limit)


def test_conf_file_sets_what_it_names_and_flags_override_it(tmp_path: Path) -> None:
    path = tmp_path / "conf.prototxt"
    path.write_text("period: 50\nmoving_rate: 0.125\n")
    options = options_from_conf(path)
    assert options == DeepSparkOptions(sync_interval=50, moving_rate=0.125)
    assert dataclasses.replace(options, sync_interval=7).moving_rate == 0.125


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("moving_rate: 0.1", "period"),
        ("period: 5 moving_rate: 0.1 perod: 3", "conf.prototxt:1:28.*period"),
        ("period: 0 moving_rate: 0.1", "conf.prototxt: sync_interval: expected 1 or more"),
    ],
)
def test_conf_file_errors_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "conf.prototxt"
    path.write_text(text)
    with pytest.raises((PrototxtError, UsageError), match=message):
        options_from_conf(path)


def test_missing_conf_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.prototxt"):
        options_from_conf(tmp_path / "nothing.prototxt")


def spent(strategy: DeepSpark, losses: list[float]) -> int:
    """Return after how many of these losses an exchange is due."""
    return next(n for n in range(1, len(losses) + 1) if strategy.is_due(Phase(0, losses[:n])))


def test_adaptive_period_spends_the_loss_of_the_first_phase() -> None:
    strategy = DeepSpark(DeepSparkOptions(sync_interval=3, adaptive_period=True))
    assert spent(strategy, [4.0, 2.0, 2.0, 9.0]) == 3
    assert spent(strategy, [2.0] * 9) == 5  # exceeds 8
    assert spent(strategy, [9.0] * 9) == 1
    assert spent(strategy, [0.5] * 40) == 17


@pytest.mark.parametrize(("loss", "expected"), [(0.0, 30), (1e-9, 30), (-1.0, 30), (NAN, 1)])
def test_adaptive_period_is_bounded(loss: float, expected: int) -> None:
    strategy = DeepSpark(DeepSparkOptions(sync_interval=3, adaptive_period=True))
    assert spent(strategy, [4.0, 2.0, 2.0]) == 3
    assert spent(strategy, [loss] * 99) == expected


def test_period_is_fixed_unless_asked_otherwise() -> None:
    strategy = DeepSpark(DeepSparkOptions(sync_interval=3))
    assert [spent(strategy, [loss] * 9) for loss in (9.0, 0.1)] == [3, 3]


@pytest.mark.parametrize(
    ("options", "lengths"),
    [
        (LocalOptions(sync_interval=4), [4, 4, 4]),
        (SparkNetOptions(sync_interval=4, post_local=2), [1, 1, 4, 4]),
        (DownpourOptions(n_push=2, n_fetch=3), [2, 1, 1, 2, 2, 1]),
        (Options(), [1, 1, 1]),
    ],
)
def test_lengths_of_phases(options: Options, lengths: list[int]) -> None:
    done, found = 0, []
    for _ in lengths:
        found.append(options.interval(done))
        done += found[-1]
    assert found == lengths


@pytest.mark.parametrize(
    "make",
    [
        lambda: SparkNetOptions(sync_interval=0),
        lambda: SparkNetOptions(momentum_at_sync="forget"),
        lambda: SparkNetOptions(warm_start=-1),
        lambda: SparkNetOptions(post_local=-1),
        lambda: EasgdOptions(moving_rate=1.5),
        lambda: EasgdOptions(center_rate=-0.5),
        lambda: EasgdOptions(nesterov_momentum=1.0),
        lambda: EasgdOptions(moving_rate=0.4).check_workers(3),
        lambda: DilocoOptions(outer_lr=-1),
        lambda: DilocoOptions(outer_momentum=1.0),
        lambda: DownpourOptions(n_push=0),
        lambda: DownpourOptions(n_fetch=0),
        lambda: DownpourOptions(server_adagrad=float("inf")),
        lambda: AsysgOptions(max_staleness=-1),
        lambda: AsysgOptions(max_staleness=2).check_workers(4),
        lambda: CenterSettings(is_locked=False, max_staleness=3),
        lambda: DeepSparkOptions(moving_rate=1.5),
        lambda: DeepSparkOptions(moving_rate=float("nan")),
        lambda: DeepSparkOptions(moving_rate=0.5, server_factor=3),
        lambda: DeepSparkOptions(decay_rate=-1),
        lambda: DeepSparkOptions(factor_decay_rate=2),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=r"expected .*; received"):
        make()


@pytest.mark.parametrize("name", strategy_names())
def test_every_strategy_has_what_its_flags_and_readers_need(name: str) -> None:
    strategy = get_strategy(name)
    assert "Source:" in (strategy.__doc__ or "")
    assert strategy(strategy.options_type()).is_synchronous in (True, False)
    for option in dataclasses.fields(strategy.options_type):
        assert option.metadata["help"], option.name


def test_unknown_strategy_suggests_a_near_one() -> None:
    with pytest.raises(UsageError, match='unknown strategy "sparknett"; did you mean "sparknet"'):
        get_strategy("sparknett")
    with pytest.raises(UsageError, match=r"expected asysg or deepspark or .* or sync"):
        get_strategy("x")


def test_a_name_is_registered_once() -> None:
    class Another(Strategy[Any, Options]):
        def exchange(self, replica: Replica, link: object) -> int:
            return 0

    with pytest.raises(ValueError, match="twice"):
        register_strategy("sparknet")(Another)
