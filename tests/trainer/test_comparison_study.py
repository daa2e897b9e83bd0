"""Which runs a comparison has: from flags, and from a study's file."""

from pathlib import Path

import pytest

from trainer.commands.train import make_parser
from trainer.comparison.combination import Combination, combine, parse_value
from trainer.comparison.study import Run, Study, read_study
from trainer.errors import UsageError
from trainer.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]


def names(combinations: list[Combination]) -> list[str]:
    return [combination.name for combination in combinations]


def test_every_strategy_is_combined_with_its_own_options_only() -> None:
    found = combine(
        ["single", "sync", "sparknet", "deepspark"],
        [2, 4],
        {"sync_interval": [10, 50], "moving_rate": [0.3]},
    )
    assert names(found) == [
        "single",
        "sync-2",
        "sync-4",
        *(f"sparknet-{k}-sync_interval={tau}" for k in (2, 4) for tau in (10, 50)),
        *(f"deepspark-{k}-sync_interval={tau}-moving_rate=0.3" for k in (2, 4) for tau in (10, 50)),
    ]
    assert found[-1].label == "deepspark, 4 workers, sync_interval 50, moving_rate 0.3"
    assert len({each.label for each in found}) == len(found)


def test_flags_of_a_combination_are_those_of_train() -> None:
    options = {"adaptive_period": [True, False], "moving_rate": [0.25]}
    adaptive, fixed = combine(["deepspark"], [3], options)
    args = make_parser("train").parse_args(adaptive.words)
    assert (args.strategy, args.workers) == ("deepspark", 3)
    assert (args.adaptive_period, args.moving_rate, args.sync_interval) == (True, 0.25, None)
    assert make_parser("train").parse_args(fixed.words).adaptive_period is None
    (single,) = combine(["single"], [2, 4], {})
    args = make_parser("train").parse_args(single.words)
    assert (args.strategy, args.workers) == ("single", 1)


@pytest.mark.parametrize(
    ("strategies", "workers", "values", "message"),
    [
        (["sparknet", "nosuch"], [2], {}, 'unknown strategy "nosuch"'),
        (["single", "sync"], [2], {"moving_rate": [0.1]}, "moving_rate: not an option of single"),
        (["sparknet"], [2], {"sync_interval": [0]}, "sync_interval: expected 1 or more"),
        (["sparknet"], [2], {"momentum_at_sync": ["lose"]}, "momentum_at_sync: expected"),
        (["easgd"], [4], {"sync_interval": ["x"]}, "sync_interval"),
    ],
)
def test_what_does_not_go_together_is_refused(
    strategies: list[str], workers: list[int], values: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        combine(strategies, workers, values)


def test_values_of_options_are_of_their_type() -> None:
    assert parse_value("sync_interval", "10") == 10
    assert parse_value("moving_rate", "1e-1") == 0.1
    assert parse_value("momentum_at_sync", "keep") == "keep"
    assert (parse_value("nesterov_momentum", "0.5"), parse_value("asynchronous", "true")) == (
        0.5,
        True,
    )
    with pytest.raises(UsageError, match="sync_interval: expected int; received ten"):
        parse_value("sync_interval", "ten")
    with pytest.raises(UsageError, match="asynchronous: expected bool; received yes"):
        parse_value("asynchronous", "yes")
    with pytest.raises(UsageError, match="period: no strategy has such an option"):
        parse_value("period", "10")


def test_the_first_seed_of_all_comes_before_the_second_of_any() -> None:
    study = Study("net", None, (Combination("single"), Combination("sync", 2)), seeds=2)
    assert [run.name for run in study.runs] == [
        *("single/seed1", "sync-2/seed1", "single/seed2", "sync-2/seed2"),
    ]
    assert study.runs[3] == Run(Combination("sync", 2), 2)


FILE = """
net = "own.prototxt"
samples = 7000
seeds = 2
tests = 5
per_worker = true
workers = [2, 3]

[[strategy]]
name = "single"

[[strategy]]
name = "sparknet"
sync_interval = [10, 50]
workers = 4

[[strategy]]
name = "deepspark"
moving_rate = 0.1
"""


def test_a_file_says_what_flags_say(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(FILE, encoding="utf-8")
    study = read_study(path)
    assert (study.net, study.solver, study.samples, study.iterations) == (
        *("own.prototxt", None),
        *(7000, None),
    )
    assert (study.seeds, study.tests, study.per_worker) == (2, 5, True)
    assert names(list(study.combinations)) == [
        "single",
        *("sparknet-4-sync_interval=10", "sparknet-4-sync_interval=50"),
        *("deepspark-2-moving_rate=0.1", "deepspark-3-moving_rate=0.1"),
    ]
    (tmp_path / "own.prototxt").touch()
    assert read_study(path).net == str(tmp_path / "own.prototxt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("net = ", "not a TOML file"),
        ('sample = 5\n[[strategy]]\nname = "sync"', "unknown key sample; expected net, solver"),
        ('samples = "5"\n[[strategy]]\nname = "sync"', "samples: expected int; received '5'"),
        ('seeds = true\n[[strategy]]\nname = "sync"', "seeds: expected int; received True"),
        ('seeds = 0\n[[strategy]]\nname = "sync"', "seeds: expected 1 or more; received 0"),
        ('samples = 5\niterations = 5\n[[strategy]]\nname = "sync"', "samples or iterations"),
        ("strategy = 5", "expected tables"),
        ("[[strategy]]\nworkers = 2", "expected a name; received None"),
        ('workers = ["2"]\n[[strategy]]\nname = "sync"', "workers: expected numbers"),
        ('[[strategy]]\nname = "easgd"\nsync_interval = []', "expected a value or a list"),
        ('[[strategy]]\nname = "easgd"\nperiod = 5', "period: not an option of easgd"),
        ('[[strategy]]\nname = "easgd"\nsync_interval = "x"', "sync_interval"),
        ("", "at least one strategy"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=rf"study\.toml: .*{message}"):
        read_study(path)
    with pytest.raises(UsageError, match=r"none\.toml: cannot be read: No such file"):
        read_study(tmp_path / "none.toml")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("net", ["quick", "deepspark"])
def test_the_studies_of_the_project_have_all_strategies(name: str, net: str) -> None:
    study = read_study(ROOT / f"experiments/{name}_{net}.toml")
    assert {each.strategy for each in study.combinations} >= {
        *("single", "sync", "sparknet", "deepspark", "easgd", "downpour", "diloco"),
    }
    assert {each.workers for each in study.combinations} == {1, 2, 4}


def test_every_study_can_be_read_and_its_net_is_there() -> None:
    for path in (ROOT / "experiments").rglob("*.toml"):
        study = read_study(path)
        assert read_recipe(study.net, study.solver, None).batch_size == 100
