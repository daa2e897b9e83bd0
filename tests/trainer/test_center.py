"""The centre: its arithmetic, and what it refuses or applies only once."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import Move
from trainer.parameter_server.books import Push
from trainer.parameter_server.center import Center
from trainer.parameter_server.center_file import center_file
from trainer.strategies import CenterSettings
from trainer.strategies.arithmetic import Layout

LAYOUT = Layout((slice(0, 3),), (slice(3, 5),))
WORKERS = 4
ELASTIC = Move("elastic", 0.5)


def center(*, is_locked: bool = True, keeps_squares: bool = False) -> Center:
    settings = CenterSettings(is_locked=is_locked, keeps_squares=keeps_squares)
    return Center(torch.zeros(5), LAYOUT, [0] * WORKERS, settings)


def push(rank: int, sequence: int, rate: float = 0.5, attempt: int = 1) -> Push:
    return Push(rank, attempt, sequence, 10 * sequence, Move("elastic", rate))


def stepping(rule: Any, rate: float, sequence: int = 1, *, is_answered: bool = True) -> Push:
    return Push(0, 1, sequence, 10 * sequence, Move(rule, rate), is_answered)


def test_a_step_answers_with_the_centre_after_it() -> None:
    c = center()
    c.register(0)
    pull = c.exchange(stepping("subtract", 0.5), torch.tensor([2.0, 4.0, 6.0, 8.0, 8.0]))
    assert pull.center.tolist() == c.copy().tolist() == [-1, -2, -3, 2, 2]


def test_adagrad_divides_by_the_root_of_all_squares() -> None:
    c = center(keeps_squares=True)
    c.register(0)
    c.exchange(stepping("adagrad", 0.5), torch.tensor([3.0, -0.001, 0.0, 0.0, 0.0]))
    assert c.copy().tolist() == pytest.approx([-0.5, 0.5, 0, 0, 0])
    c.exchange(stepping("adagrad", 0.5, 2), torch.tensor([4.0, 0.0, 0.0, 0.0, 0.0]))
    assert c.copy().tolist() == pytest.approx([-0.5 - 0.5 * 4 / 5, 0.5, 0, 0, 0])


def test_a_run_goes_on_from_the_state_of_its_centre() -> None:
    settings, start = CenterSettings(keeps_squares=True), torch.arange(5).float()
    whole = Center(start, LAYOUT, [0] * WORKERS, settings)
    whole.register(0)
    update = torch.tensor([3.0, -0.5, 0.0, 1.0, 2.0])
    whole.exchange(stepping("adagrad", 0.5), update)
    state = whole.state()
    resumed = Center(whole.copy(), LAYOUT, whole.iterations, settings, state=state)
    state[0].fill_(99)
    assert resumed.register(0) == (1, 10)
    for c, sequence in ((whole, 2), (resumed, 2)):
        c.exchange(stepping("adagrad", 0.5, sequence), update)
    assert torch.equal(whole.copy(), resumed.copy())
    assert resumed.iterations == [20, 0, 0, 0]
    assert center().state() == []


@pytest.mark.parametrize("state", [[torch.ones(4)], [torch.ones(5), torch.ones(5)]])
def test_a_state_of_another_net_or_strategy_is_refused(state: list[Tensor]) -> None:
    settings = CenterSettings(keeps_squares=True)
    with pytest.raises(TrainerError, match=r"expected tensors of shape \[\(5,\)\]; received"):
        Center(torch.zeros(5), LAYOUT, [0], settings, state=state)
    with pytest.raises(TrainerError, match=r"expected tensors of shape \[\]"):
        Center(torch.zeros(5), LAYOUT, [0], CenterSettings(), state=state)


def test_a_withdrawn_worker_is_refused_if_it_comes_back() -> None:
    c = center()
    c.register(0)
    c.withdraw(0)
    with pytest.raises(TrainerError, match="attempt 2 is the current one"):
        c.exchange(push(0, 1), torch.ones(5))


def test_an_unanswered_push_has_not_seen_what_others_did() -> None:
    c = center()
    for rank in range(2):
        c.register(rank)
    c.exchange(push(1, 1), torch.ones(5))
    stale = []
    for sequence in (1, 2):
        pull = c.exchange(stepping("subtract", 1.0, sequence, is_answered=False), torch.ones(5))
        assert pull.center.shape == (0,)
        stale.append(pull.staleness)
    assert torch.equal(c.fetch(0, 1), c.copy())
    stale.append(c.exchange(stepping("subtract", 1.0, 3), torch.ones(5)).staleness)
    assert stale == [1, 1, 0]


def test_counting_moves_nothing() -> None:
    c = center()
    c.register(0)
    assert c.exchange(stepping("count", 1.0), torch.empty(0)).staleness == 0
    assert c.copy().tolist() == [0] * 5
    assert c.worker_iterations == 10


def test_only_a_shared_centre_shows_its_memory() -> None:
    with pytest.raises(TrainerError, match="not shared"):
        _ = center().memory
    settings = CenterSettings(is_locked=False, is_shared=True)
    with center_file(5, LAYOUT, settings, 1, 0) as file:
        assert file is not None
        c = Center(torch.ones(5), LAYOUT, [0], settings, file=file)
        other = file.map().parameters
        assert other.tolist() == [1] * 5
        other[0] = 7
        assert c.memory.tolist() == c.copy().tolist() == [7, 1, 1, 1, 1]


def test_center_moves_weights_by_the_rate_and_statistics_by_one_kth() -> None:
    c = center()
    c.register(0)
    pull = c.exchange(push(0, 1), torch.full((5,), 8.0))
    assert pull.center.tolist() == [0] * 5
    assert c.copy().tolist() == [4, 4, 4, 2, 2]


def test_center_keeps_its_own_copy() -> None:
    start = torch.zeros(5)
    c = Center(start, LAYOUT, [0], CenterSettings())
    c.register(0)
    start.fill_(9)
    c.copy().fill_(9)
    assert c.exchange(push(0, 1), torch.ones(5)).center.tolist() == [0] * 5


@pytest.mark.parametrize("is_locked", [True, False])
def test_rate_one_swaps_and_rate_zero_leaves(is_locked: bool) -> None:
    c = center(is_locked=is_locked)
    c.register(1)
    worker = torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0])
    pull = c.exchange(push(1, 1, rate=1.0), worker)
    assert pull.center[:3].tolist() == [0, 0, 0]
    assert c.copy()[:3].tolist() == [1, 2, 3]
    c.exchange(push(1, 2, rate=0.0), torch.full((5,), 7.0))
    assert c.copy()[:3].tolist() == [1, 2, 3]


def test_repeated_push_is_applied_once() -> None:
    c = center()
    c.register(0)
    worker = torch.full((5,), 8.0)
    c.exchange(push(0, 1), worker)
    again = c.exchange(push(0, 1), worker)
    assert again.center.tolist() == c.copy().tolist() == [4, 4, 4, 2, 2]
    assert c.worker_iterations == 10


def test_replaced_attempt_is_refused_and_the_new_one_goes_on_from_its_iterations() -> None:
    c = center()
    assert c.register(2) == (1, 0)
    c.exchange(push(2, 3), torch.ones(5))
    assert c.register(2) == (2, 30)
    with pytest.raises(TrainerError, match=r"worker 2, attempt 1: refused, attempt 2"):
        c.exchange(push(2, 4), torch.ones(5))
    before = c.copy()
    c.exchange(Push(2, 2, 1, 40, ELASTIC), torch.ones(5))
    assert not torch.equal(c.copy(), before)
    assert c.worker_iterations == 40


def test_staleness_counts_the_updates_of_others() -> None:
    c = center()
    for rank in range(3):
        c.register(rank)
    order = [0, 1, 2, 0, 0, 2]
    sequences = [1, 1, 1, 2, 3, 2]
    stale = [
        c.exchange(push(rank, sequence), torch.ones(5)).staleness
        for rank, sequence in zip(order, sequences, strict=True)
    ]
    assert stale == [0, 1, 2, 2, 0, 2]


def test_a_worker_that_starts_later_is_not_stale() -> None:
    c = center()
    c.register(0)
    c.exchange(push(0, 1), torch.ones(5))
    c.register(1)
    assert c.exchange(push(1, 1), torch.ones(5)).staleness == 0


@pytest.mark.parametrize(
    ("bad", "payload", "message"),
    [
        (push(0, 1), torch.ones(6), "expected 5 parameters; received 6"),
        (push(0, 1), torch.tensor([0, 0, float("nan"), 0, 0]), "diverges"),
        (push(0, 1), torch.tensor([0, 0, 0, 0, float("-inf")]), "diverges"),
        (push(0, 1, rate=1.5), torch.ones(5), "expected a rate of 0 to 1"),
        (push(0, 1, rate=float("nan")), torch.ones(5), "expected a rate of 0 to 1"),
        (stepping("subtract", -1.0), torch.ones(5), "worker 0: expected a rate of 0 or more"),
        (stepping("subtract", float("inf")), torch.ones(5), "expected a rate of 0 or more"),
        (stepping("subtract", 1.0), torch.ones(4), "expected 5 parameters; received 4"),
        (stepping("count", 1.0), torch.ones(5), "expected 0 parameters; received 5"),
        (stepping("explode", 1.0), torch.ones(5), "expected a move of elastic.*'explode'"),
        (stepping("adagrad", 1.0), torch.ones(5), "a move of elastic, subtract, count; received"),
        (push(WORKERS, 1), torch.ones(5), "expected a worker 0 to 3; received 4"),
        (push(-1, 1), torch.ones(5), "received -1"),
        (push(1, 1), torch.ones(5), "attempt 0 is the current one"),
        (Push(0, 1, 1, -5, ELASTIC), torch.ones(5), "expected iteration 0 or later"),
    ],
)
def test_center_refuses_and_stays_as_it_was(bad: Push, payload: Tensor, message: str) -> None:
    c = center()
    c.register(0)
    with pytest.raises(TrainerError, match=message):
        c.exchange(bad, payload)
    assert c.copy().tolist() == [0] * 5
    assert c.worker_iterations == 0


def test_watch_sees_progress_and_the_new_centre() -> None:
    seen: list[tuple[int, int, list[float]]] = []

    def watch(before: int, after: int) -> None:
        seen.append((before, after, c.copy().tolist()))

    c = Center(torch.zeros(5), LAYOUT, [6, 7], CenterSettings(), watch=watch)
    c.register(1)
    c.exchange(Push(1, 1, 1, 9, ELASTIC), torch.ones(5))
    c.exchange(Push(1, 1, 1, 9, ELASTIC), torch.ones(5))
    assert seen == [(13, 15, [0.5] * 5)]


def test_locked_exchanges_of_many_threads_happen_one_after_the_other() -> None:
    """With x̃ ← x̃/2 + x/2 of equal x, only the number of exchanges matters if none is lost."""
    c = Center(torch.zeros(5), Layout((slice(0, 5),), ()), [0] * WORKERS, CenterSettings())
    barrier = threading.Barrier(WORKERS)

    def work(rank: int) -> None:
        c.register(rank)
        barrier.wait(timeout=30)
        for sequence in range(1, 6):
            c.exchange(push(rank, sequence), torch.ones(5))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert c.copy().tolist() == [1 - 0.5**20] * 5
