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
from trainer.errors import UsageError
from trainer.links import Pull
from trainer.strategies import (
    DeepSpark,
    DeepSparkOptions,
    Options,
    Replica,
    SparkNet,
    SparkNetOptions,
    Strategy,
    get_strategy,
    options_from_conf,
    register_strategy,
    strategy_names,
)
from trainer.strategies.arithmetic import (
    Layout,
    elastic_center_,
    elastic_worker_,
    mean_,
    step_decay,
)

CONF = """
period: 50  moving_rate: 0.25
decay_rate: 0.5 decay_step: 100 decay_limit: 3
server_factor: 2 factor_decay_rate: 0.75 factor_decay_step: 200 factor_decay_limit: 4
"""


def segment(offset: int, size: int, *, is_statistic: bool) -> Segment:
    return Segment("layer", 0, offset, size, (size,), 1.0, 1.0, is_statistic)


def replica(parameters: Tensor, layout: Layout, iteration: int = 10) -> Replica:
    return Replica(parameters, [torch.arange(len(parameters)).float()], layout, iteration)


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


class FakeGroup:
    """Averages with one other worker, which holds sevens."""

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


class FakeCenter:
    """A centre of tens that remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[float], float, int]] = []

    def exchange(self, parameters: Tensor, rate: float, iteration: int) -> Pull:
        self.calls.append((parameters.tolist(), rate, iteration))
        return Pull(torch.full_like(parameters, 10), 3)


def test_deepspark_sends_its_weights_then_moves_all_but_the_statistics() -> None:
    center = FakeCenter()
    own = replica(torch.tensor([2.0, 4.0, 6.0]), Layout((slice(0, 2),), (slice(2, 3),)))
    options = DeepSparkOptions(moving_rate=0.25, server_factor=0.5)
    assert DeepSpark(options).exchange(own, center) == 3
    assert center.calls == [([2.0, 4.0, 6.0], 0.125, 10)]
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


@pytest.mark.parametrize(
    "make",
    [
        lambda: SparkNetOptions(sync_interval=0),
        lambda: SparkNetOptions(momentum_at_sync="forget"),
        lambda: DeepSparkOptions(moving_rate=1.5),
        lambda: DeepSparkOptions(moving_rate=float("nan")),
        lambda: DeepSparkOptions(moving_rate=0.5, server_factor=3),
        lambda: DeepSparkOptions(decay_rate=-1),
        lambda: DeepSparkOptions(factor_decay_rate=2),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], Options]) -> None:
    with pytest.raises(UsageError, match=r"expected .*; received"):
        make()


@pytest.mark.parametrize("name", strategy_names())
def test_every_strategy_has_what_its_flags_and_readers_need(name: str) -> None:
    strategy = get_strategy(name)
    assert "Source:" in (strategy.__doc__ or "")
    assert strategy(strategy.options_type()).options.sync_interval == 10
    for option in dataclasses.fields(strategy.options_type):
        assert option.metadata["help"], option.name


def test_unknown_strategy_suggests_a_near_one() -> None:
    with pytest.raises(UsageError, match='unknown strategy "sparknett"; did you mean "sparknet"'):
        get_strategy("sparknett")
    with pytest.raises(UsageError, match="expected deepspark or sparknet"):
        get_strategy("x")


def test_a_name_is_registered_once() -> None:
    class Another(Strategy[Any, Options]):
        def exchange(self, replica: Replica, link: object) -> int:
            return 0

    with pytest.raises(ValueError, match="twice"):
        register_strategy("sparknet")(Another)
