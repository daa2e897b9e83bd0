"""The progress bar of train tells of speed and of workers."""

import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from run_records import exchange

from trainer.progress import ProgressBar


@pytest.fixture
def bar() -> Iterator[ProgressBar]:
    with closing(ProgressBar(1000, 0, 5, 3)) as bar:
        yield bar


def shown(bar: ProgressBar) -> str:
    return str(bar._bar.postfix)


def test_healthy_workers_that_are_up_to_date_take_no_room(bar: ProgressBar) -> None:
    bar.advance_to(10)
    bar.show(loss=0.5)
    bar.show_exchange(exchange(1, 10, 1.0, staleness=0))
    assert "loss=0.5" in shown(bar)
    assert "workers" not in shown(bar)
    assert "staleness" not in shown(bar)


def test_speed_is_shown_in_images(bar: ProgressBar) -> None:
    time.sleep(2 * bar._bar.mininterval)
    bar.advance_to(10)
    speed = bar._bar.format_dict["rate"]
    bar.show(loss=0.5)
    assert 0 < speed < 10 / bar._bar.mininterval
    assert f"images/s={5 * speed:.0f}" in shown(bar)


def test_staleness_is_the_mean_of_the_workers(bar: ProgressBar) -> None:
    for rank, staleness in ((0, 9), (1, 2), (0, 1)):
        bar.show_exchange(exchange(rank, 10, 1.0, staleness=staleness))
    assert "staleness=1.5" in shown(bar)


def test_silent_workers_are_counted_until_they_are_heard_of(bar: ProgressBar) -> None:
    bar.show_event("straggler", {"rank": 1})
    assert "workers=2/3" in shown(bar)
    bar.show_event("dropped", {"rank": 0})
    bar.show_event("begin", {})
    assert "workers=1/3" in shown(bar)
    bar.show_exchange(exchange(1, 10, 1.0))
    assert "workers=2/3" in shown(bar)
