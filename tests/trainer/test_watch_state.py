"""What is known of a watched run follows from its records."""

import math
from collections.abc import Iterable

import pytest
from run_records import Record, event, exchange, record, start

from trainer.watching.parts import Trend
from trainer.watching.state import RunState


def state_of(records: Iterable[Record]) -> RunState:
    state = RunState()
    for each in records:
        state.add(each)
    return state


def texts(state: RunState) -> list[str]:
    return [event.text for event in state.events]


SINGLE = [
    start(strategy="single", workers=1, device="cuda:0"),
    record("test", 0, 1.0, net=0, loss=2.5, accuracy=0.25),
    event("begin", 0, 2.0),
    record("train", 0, 2.5, loss=3.0, lr=0.02),
    record("train", 100, 12.0, loss=2.0, lr=0.01),
    record("test", 100, 14.0, net=0, loss=2.0, accuracy=0.5),
    record("test", 100, 14.0, net=1, loss=9.0, accuracy=0.99),
    record("train", 200, 22.0, loss=None, lr=0.01),
    record("test", 200, 23.0, net=0, loss=2.0, accuracy=0.375),
]


def test_one_process_is_followed() -> None:
    state = state_of(SINGLE)
    assert state.setup is not None
    assert (state.setup.net, state.setup.device, state.max_iter) == ("tiny", "cuda:0", 1000)
    assert (state.iteration, state.seconds, state.lr) == (200, 23.0, 0.01)
    assert (state.has_begun, state.is_over, state.workers) == (True, False, {})
    assert state.loss == 2.5  # what is not finite is left out
    assert state.losses.values == [3.0, 2.5]
    score = state.score
    assert score is not None
    assert (score.name, score.last, score.best, score.best_iteration) == (
        "accuracy", 0.375, 0.5, 100,
    )  # fmt: skip
    assert score.trend.values == [0.25, 0.5, 0.375]


def test_speed_counts_from_the_beginning_of_the_training() -> None:
    state = state_of(SINGLE)
    assert state.iterations_per_s == pytest.approx(200 / 21)
    assert state.images_per_s == pytest.approx(1000 / 21)
    assert state.seconds_left == pytest.approx(800 / 200 * 21)


def test_speed_is_that_of_the_last_minute() -> None:
    slow = [record("train", 10 * number, 20.0 * number, loss=1.0) for number in range(10)]
    fast = [record("train", 90 + 10 * n, 180.0 + n, loss=1.0) for n in range(1, 71)]
    assert state_of([*SINGLE[:1], *slow]).iterations_per_s == pytest.approx(0.5)
    assert state_of([*SINGLE[:1], *slow, *fast]).iterations_per_s == pytest.approx(10, rel=0.02)


def test_nothing_is_said_of_speed_before_it_can_be_told() -> None:
    for count in range(1, 5):
        state = state_of(SINGLE[:count])
        assert state.iterations_per_s is state.images_per_s is state.seconds_left is None
        assert state.has_begun == (count >= 3)


def test_loss_is_the_score_where_there_is_no_accuracy() -> None:
    tests = [record("test", n, n, net=0, scale=7.0, l2_loss=4.0 - n % 3) for n in range(5)]
    score = state_of([start(), *tests]).score
    assert score is not None
    assert (score.name, score.last, score.best, score.best_iteration) == ("l2_loss", 3, 2, 2)


def test_workers_are_followed() -> None:
    state = state_of(
        [
            start(),
            event("begin", 0, 4.0),
            exchange(0, 10, 5.0, loss=0.75, staleness=1),
            exchange(0, 20, 6.0, loss=0.5, staleness=4, compute_s=0.5),
            exchange(1, 7, 7.0, loss=None, lr=0.125),
        ]
    )
    first, second = state.workers.values()
    assert (state.iteration, state.lr) == (27, 0.125)
    assert (first.iteration, first.loss, first.exchanges, first.heard_s) == (20, 0.5, 2, 6.0)
    assert (first.compute_s, first.exchange_s) == pytest.approx((0.8, 0.2))
    assert (first.staleness, first.max_staleness) == (5, 4)
    assert (second.iteration, second.loss, second.heard_s) == (7, None, 7.0)
    assert state.loss == 0.625


def test_iterations_may_count_those_of_each_worker() -> None:
    state = state_of([start(per_worker=True), exchange(0, 10, 5.0), exchange(1, 8, 6.0)])
    assert state.iteration == 9


def test_workers_are_there_before_they_are_heard_of() -> None:
    state = state_of([start(workers=3)])
    assert [worker.heard_s for worker in state.workers.values()] == [None] * 3
    assert not state.has_begun


def test_events_are_told() -> None:
    state = state_of(
        [
            start(),
            exchange(0, 10, 5.0),
            event("straggler", 20, 36.0, rank=1, host="one", silent_s=31.4),
            event("dropped", 20, 150.0, rank=1, host="one"),
            event("end", 1000, 200.0, workers=[]),
        ]
    )
    assert texts(state) == [
        "straggler: no word from worker 1 on one for 31 s",
        "dropped: worker 1 on one; the others do its share",
        "ended at iteration 1,000",
    ]
    assert [each.seconds for each in state.events] == [36.0, 150.0, 200.0]
    assert state.workers[1].is_dropped
    assert (state.is_over, state.iteration) == (True, 1000)


def test_run_that_was_asked_to_stop_is_over() -> None:
    state = state_of([*SINGLE, event("end", 210, 24.0)])
    assert state.is_over
    assert texts(state) == ["stopped at iteration 210"]


def test_loss_of_workers_takes_all_back() -> None:
    state = state_of(
        [
            start(),
            exchange(0, 20, 5.0),
            exchange(1, 20, 5.1),
            event("lost", 40, 6.0, message="worker 1\nwas lost.", resumed_at=20),
        ]
    )
    assert (state.iteration, state.iterations_per_s) == (20, None)
    assert [worker.iteration for worker in state.workers.values()] == [10, 10]
    assert texts(state) == ["lost: worker 1 was lost. All go on from iteration 20"]
    state.add(exchange(0, 15, 7.0))
    assert state.iteration == 25


def test_resumed_run_goes_on() -> None:
    again = [
        start(iteration=20, strategy="deepspark"),
        event("begin", 20, 3.0),
        exchange(0, 30, 4.0),
        exchange(1, 14, 5.0),
    ]
    state = state_of([start(), exchange(0, 20, 50.0), event("end", 40, 60.0), *again])
    assert (state.iteration, state.seconds, state.is_over) == (44, 65.0, False)
    assert texts(state) == ["stopped at iteration 40", "goes on from iteration 20"]
    assert state.iterations_per_s == pytest.approx((44 - 20) / 2)


def test_older_file_does_not_say_how_the_run_was_set_up() -> None:
    records = [
        exchange(0, 10, 5.0),
        exchange(1, 10, 6.0),
        exchange(0, 20, 7.0),
        exchange(0, 12, 1.0),  # resumed
        exchange(0, 22, 2.0),
    ]
    state = state_of(records)
    assert (state.setup, state.max_iter, state.seconds_left) == (None, 0, None)
    assert (state.iteration, state.seconds, list(state.workers)) == (44, 9.0, [0, 1])
    assert state.images_per_s == pytest.approx(100)


@pytest.mark.parametrize(
    "strange",
    [
        record("start", 0, 0.0),
        start(workers=None, max_iter="many", batch=[], net=3),
        record("test", 0, 1.0),
        record("test", 0, 1.0, net=0, accuracy="high"),
        record("train", 0, 1.0),
        record("exchange", 2, 1.0),
        record("event", 2, 1.0),
        event("lost", 2, 1.0),
        event("straggler", 2, 1.0),
        event("dropped", 2, 1.0, rank=7),
        record("song", 2, 1.0),
    ],
    ids=lambda value: f"{value['kind']}-{len(value)}",
)
def test_records_of_other_versions_do_no_harm(strange: Record) -> None:
    state = state_of([start(), strange, exchange(0, 10, 5.0)])
    assert state.workers[0].iteration == 10


def test_control_characters_of_records_do_not_reach_the_terminal() -> None:
    lost = event("lost", 0, 1.0, message="\x1b[2J gone", resumed_at=0)
    state = state_of([start(net="a\x1b]0;b"), lost])
    assert state.setup is not None
    assert state.setup.net.isprintable()
    assert texts(state)[0].isprintable()


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 5000])
def test_trend_keeps_its_shape_in_little_memory(count: int) -> None:
    trend = Trend()
    values = [math.sin(number / 400) for number in range(count)]
    for value in values:
        trend.add(value)
    assert len(trend.values) <= 256
    assert (not values and not trend.values) or trend.values[0] == pytest.approx(values[0], abs=0.1)
    for place, value in enumerate(trend.values):
        wanted = values[min(count - 1, (2 * place + 1) * count // (2 * len(trend.values)))]
        assert value == pytest.approx(wanted, abs=0.1)
