"""Curves: which panels runs give, and what numbers they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.errors import UsageError
from trainer.plotting.curves import Panel, make_panels, recorded_names, running_mean, time_unit
from trainer.plotting.records import RunRecords


def record(kind: str, iteration: int, **values: Any) -> dict[str, Any]:
    place = {"iteration": iteration, "samples": 7 * iteration, "seconds": iteration / 4}
    return {"kind": kind, **place, **values}


def single(name: str = "single") -> RunRecords:
    train = [record("train", step, loss=3.0 - step / 100, lr=0.1) for step in (0, 50, 100)]
    test = [record("test", step, net=0, accuracy=step / 200, loss=3.5) for step in (0, 100)]
    return RunRecords(Path(name), name, train=train, test=test)


def distributed(workers: int = 3) -> RunRecords:
    exchanges = [
        record(
            "exchange", step, rank=rank, loss=rank + step, lr=0.1, staleness=rank, sent_bytes=5e6
        )
        for step in (10, 20)
        for rank in range(workers)
    ]
    return RunRecords(Path("shared"), "shared", exchange=exchanges)


def panel_of(runs: list[RunRecords], name: str, x_axis: str = "iterations") -> Panel:
    (panel,) = make_panels(runs, [name], x_axis)
    return panel


def test_loss_in_tests_and_in_training_are_two_panels() -> None:
    test, train = make_panels([single(), distributed()], ["loss"])
    assert (test.y_label, train.y_label) == ("test loss", "train loss")
    assert [curve.label for curve in test.curves] == ["single"]
    assert [curve.label for curve in train.curves] == ["single", "shared"]
    assert [curve.style for curve in train.curves] == [0, 1]
    assert train.curves[0].y.tolist() == [3.0, 2.5, 2.0]


def test_names_are_those_of_numbers() -> None:
    assert recorded_names([single()]) == ["accuracy", "loss", "lr"]
    assert recorded_names([distributed()]) == ["loss", "lr", "staleness", "sent_bytes"]
    nothing = RunRecords(Path("a"), "a", train=[record("train", 1, loss=None, note="x", ok=True)])
    assert recorded_names([nothing]) == []


def test_workers_are_drawn_as_their_mean_within_their_extremes() -> None:
    (curve,) = panel_of([distributed()], "loss").curves
    assert curve.low is not None
    assert curve.high is not None
    assert curve.x.tolist() == [10, 20]
    assert curve.y.tolist() == [11, 21]
    assert curve.low.tolist() == [10, 20]
    assert curve.high.tolist() == [12, 22]
    panel = panel_of([distributed()], "sent_bytes")
    assert panel.y_label == "sent per exchange (MB)"
    assert panel.curves[0].y.tolist() == [5.0, 5.0]
    assert panel.note == ""
    assert panel_of([distributed()], "staleness").note.startswith("shaded")


def test_one_worker_is_drawn_as_it_is() -> None:
    (curve,) = panel_of([distributed(1)], "staleness").curves
    assert curve.low is None
    assert curve.x.tolist() == [10, 20]


def test_exchanges_without_a_loss_are_passed_over() -> None:
    run = distributed(2)
    run.exchange.append(record("exchange", 30, rank=0, loss=None))
    (curve,) = panel_of([run], "loss").curves
    assert curve.x.tolist() == [10, 20]


def test_every_test_net_has_its_curve() -> None:
    run = single()
    run.test += [record("test", 0, net=1, accuracy=0.75), record("test", 0, net=None, accuracy=0.1)]
    curves = panel_of([run, single("other")], "accuracy").curves
    assert [curve.label for curve in curves] == ["single", "single, test net 1", "other"]
    assert [curve.style for curve in curves] == [0, 2, 1]
    assert curves[1].y.tolist() == [0.75]


def test_a_null_is_a_gap() -> None:
    run = single()
    run.train[1]["loss"] = None
    _, train = make_panels([run], ["loss"])
    assert np.isnan(train.curves[0].y).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("x_axis", "label", "values"),
    [
        ("iterations", "iterations", [0, 50, 100]),
        ("samples", "samples", [0, 350, 700]),
        ("seconds", "time (s)", [0, 12.5, 25]),
    ],
)
def test_axes(x_axis: str, label: str, values: list[float]) -> None:
    panel = panel_of([single()], "lr", x_axis)
    assert panel.x_label == label
    assert panel.curves[0].x.tolist() == values
    assert panel.y_label == "learning rate"


def test_long_times_are_in_minutes_and_hours() -> None:
    assert [time_unit(longest) for longest in (599, 600, 10799, 10800)] == [
        *(("s", 1.0), ("min", 60.0)),
        *(("min", 60.0), ("h", 3600.0)),
    ]
    run = single()
    run.train[-1]["seconds"] = 1200.0
    panel = panel_of([run], "lr", "seconds")
    assert panel.x_label == "time (min)"
    assert panel.curves[0].x[-1] == 20


def test_rates_over_decades_are_logarithmic() -> None:
    run = single()
    assert not panel_of([run], "lr").is_log
    run.train[-1]["lr"] = 0.001
    assert panel_of([run], "lr").is_log
    run.train[-1]["lr"] = 0.0
    assert not panel_of([run], "lr").is_log


def noisy(kind: str, values: np.ndarray, **more: Any) -> list[dict[str, Any]]:
    return [record(kind, step, loss=float(value), **more) for step, value in enumerate(values)]


def test_noisy_training_is_smoothed_and_tests_are_not() -> None:
    values = 1 + np.random.default_rng(7).normal(size=200)
    run = RunRecords(Path("a"), "a", train=noisy("train", values), test=noisy("test", values))
    test, train = make_panels([run], ["loss"])
    assert test.curves[0].y.tolist() == values.tolist()
    assert (test.note, train.note) == ("", "running means; faint: as recorded")
    assert train.curves[0].raw is not None
    assert train.curves[0].raw.tolist() == values.tolist()
    assert train.curves[0].y == pytest.approx(running_mean(values, 4))
    assert train.curves[0].y.std() < values.std() / 2


@pytest.mark.parametrize("count", [19, 200])
def test_what_falls_steadily_or_has_few_points_is_not_smoothed(count: int) -> None:
    values = np.linspace(3, 1, count)
    if count < 20:
        values[::2] += 1
    (panel,) = make_panels([RunRecords(Path("a"), "a", train=noisy("train", values))], ["loss"])
    assert panel.curves[0].raw is None
    assert panel.curves[0].y.tolist() == values.tolist()


def test_noise_of_workers_is_smoothed_with_its_borders() -> None:
    values = 1 + np.random.default_rng(7).normal(size=400)
    exchanges = [
        record("exchange", step // 2, rank=step % 2, loss=float(value))
        for step, value in enumerate(values)
    ]
    (curve,) = panel_of([RunRecords(Path("a"), "a", exchange=exchanges)], "loss").curves
    pairs = values.reshape(200, 2)
    assert curve.is_smoothed
    assert curve.raw is None
    assert curve.y == pytest.approx(running_mean(pairs.mean(axis=1), 4))
    assert curve.low == pytest.approx(running_mean(pairs.min(axis=1), 4))
    assert curve.high == pytest.approx(running_mean(pairs.max(axis=1), 4))


def test_running_means_by_hand() -> None:
    values = np.array([1.0, 2.0, np.nan, 6.0, 7.0])
    assert running_mean(values, 1).tolist()[:2] == [1.5, 1.5]
    assert np.isnan(running_mean(values, 1)[2])
    assert running_mean(values, 1).tolist()[3:] == [6.5, 6.5]
    assert running_mean(values[:2], 9).tolist() == [1.5, 1.5]


def test_a_name_that_no_run_has_recorded_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"'top5' is recorded in none .* accuracy, loss, lr$"):
        make_panels([single()], ["loss", "top5"])
    with pytest.raises(UsageError, match="recorded are: no numbers"):
        make_panels([RunRecords(Path("a"), "a")], ["loss"])


def test_samples_are_not_in_a_log() -> None:
    run = single("a.log")
    for each in run.train:
        del each["samples"]
    with pytest.raises(UsageError, match=r"a\.log: a log does not say how many samples"):
        make_panels([single(), run], ["loss"], "samples")
