"""Reading ahead: order, depth, errors, deadlines, and an end without leftovers."""

import gc
import itertools
import os
import threading

import pytest

from trainer.data.prefetch import Prefetcher
from trainer.errors import DataError, TrainerError


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


class Counter:
    """Makes 0, 1, 2, ... and tells when it has made so many."""

    def __init__(self, fails_at: int = -1) -> None:
        self.made = 0
        self._fails_at = fails_at
        self._changed = threading.Condition()

    def __call__(self) -> int:
        with self._changed:
            if self.made == self._fails_at:
                raise DataError("no more")
            self.made += 1
            self._changed.notify_all()
            return self.made - 1

    def wait_for(self, made: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.made >= made, 60)


def test_results_come_in_order_and_no_more_than_depth_are_made_ahead() -> None:
    counter = Counter()
    prefetcher = Prefetcher(counter, 3, "numbers")
    assert counter.made == 0
    assert [prefetcher.get() for _ in range(5)] == [0, 1, 2, 3, 4]
    counter.wait_for(5 + 3)
    assert prefetcher.close()
    assert counter.made == 5 + 3


def test_an_error_comes_after_the_results_before_it_and_stays() -> None:
    prefetcher = Prefetcher(Counter(fails_at=2), 4, "numbers")
    assert [prefetcher.get(), prefetcher.get()] == [0, 1]
    for _ in range(2):
        with pytest.raises(DataError, match=r"no more"):
            prefetcher.get()
    prefetcher.close()


def test_a_result_that_does_not_come_is_named() -> None:
    release = threading.Event()
    prefetcher = Prefetcher(release.wait, 1, "batch of images", deadline_s=0.05)
    with pytest.raises(DataError, match=r"batch of images: waited 0.05 s and none came; check"):
        prefetcher.get()
    release.set()
    assert prefetcher.close()


def test_close_ends_the_thread_and_get_says_so() -> None:
    prefetcher = Prefetcher(Counter(), 2, "numbers")
    prefetcher.get()
    assert len(reading_threads()) == 1
    assert prefetcher.close()
    assert prefetcher.close()
    assert not reading_threads()
    with pytest.raises(TrainerError, match=r"numbers: closed"):
        prefetcher.get()


def test_close_wakes_whoever_waits() -> None:
    release = threading.Event()
    prefetcher = Prefetcher(release.wait, 1, "batch", deadline_s=60)
    closer = threading.Timer(0.05, prefetcher.close)
    closer.start()
    with pytest.raises(TrainerError, match=r"batch: closed"):
        prefetcher.get()
    release.set()
    closer.join()
    assert not reading_threads()


def test_close_leaves_a_hanging_read_alone_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trainer.data.prefetch._JOIN_TIMEOUT_S", 0.05)
    release = threading.Event()
    prefetcher = Prefetcher(release.wait, 1, "batch", deadline_s=0.05)
    with pytest.raises(DataError, match=r"none came"):
        prefetcher.get()
    assert not prefetcher.close()
    assert "batch: still reading after" in caplog.text
    release.set()
    (thread,) = reading_threads()
    thread.join(60)
    assert prefetcher.close()


def test_close_before_the_first_get_starts_nothing() -> None:
    prefetcher = Prefetcher(Counter(), 2, "numbers")
    assert prefetcher.close()
    assert not reading_threads()


def test_a_forgotten_prefetcher_ends_its_thread() -> None:
    prefetcher = Prefetcher(itertools.count().__next__, 2, "numbers")
    prefetcher.get()
    (thread,) = reading_threads()
    del prefetcher
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_a_forked_process_is_told_to_open_the_data_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    prefetcher = Prefetcher(Counter(), 2, "numbers")
    prefetcher.get()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        with pytest.raises(TrainerError, match=r"open the data anew in process -1"):
            prefetcher.get()
        assert not prefetcher.close()
    assert prefetcher.get() == 1
    prefetcher.close()
