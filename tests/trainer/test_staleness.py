"""The bound on staleness: kept in whatever order workers come, without waiting in a circle."""

import random
import threading

import pytest
import torch

from trainer.errors import TrainerError
from trainer.links import Move
from trainer.parameter_server.books import Push
from trainer.parameter_server.center import Center
from trainer.strategies import CenterSettings
from trainer.strategies.arithmetic import Layout, may_push

LAYOUT = Layout((slice(0, 3),), ())


def bounded(workers: int, limit: int, wait_s: float = 20.0) -> Center:
    settings = CenterSettings(max_staleness=limit)
    center = Center(torch.zeros(3), LAYOUT, [0] * workers, settings, wait_s=wait_s)
    for rank in range(workers):
        center.register(rank)
    return center


def step(center: Center, rank: int, sequence: int, attempt: int = 1) -> int:
    push = Push(rank, attempt, sequence, sequence, Move("subtract"))
    return center.exchange(push, torch.ones(3)).staleness


@pytest.mark.parametrize(("workers", "slack"), [(1, 0), (2, 0), (2, 3), (3, 0), (5, 2), (7, 0)])
@pytest.mark.parametrize("seed", range(20))
def test_any_order_keeps_the_bound_and_somebody_may_always_go_on(
    workers: int, slack: int, seed: int
) -> None:
    """Workers of random speeds, some of which end: nobody is ever staler than the bound."""
    draw = random.Random(seed)
    limit = workers - 1 + slack
    seen = dict.fromkeys(range(workers), 0)
    speeds = [draw.choice([1, 1, 10, 100]) for _ in range(workers)]
    worst = 0
    for version in range(300):
        allowed = [
            rank
            for rank in seen
            if may_push([seen[other] for other in seen if other != rank], version, limit)
        ]
        assert min(seen, key=lambda rank: seen[rank]) in allowed
        (rank,) = draw.choices(allowed, [speeds[rank] for rank in allowed])
        worst = max(worst, version - seen[rank])
        seen[rank] = version + 1
        if len(seen) > 1 and draw.random() < 0.005:
            del seen[rank]
    assert worst <= limit


def test_a_bound_below_the_number_of_others_would_stop_everybody() -> None:
    assert not may_push([0, 0], version=0, limit=1)
    assert may_push([0, 0], version=0, limit=2)
    assert may_push([], version=9, limit=0)


def test_threads_at_the_centre_keep_the_bound_and_all_end() -> None:
    workers, pushes = 4, 25
    center, stale = bounded(workers, workers), []

    def work(rank: int) -> None:
        stale.extend(step(center, rank, 1 + n) for n in range(pushes * (1 + rank)))
        center.leave(rank, 1)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert max(stale) <= workers
    assert len(stale) == pushes * (1 + 2 + 3 + 4)
    assert center.copy().tolist() == [-len(stale)] * 3


def test_a_worker_too_far_ahead_gives_up_and_names_whom_it_waits_for() -> None:
    center = bounded(3, 2, wait_s=0.05)
    step(center, 1, 1)
    with pytest.raises(
        TrainerError,
        match=r"worker 1 has waited 0.05 s for worker 0 and worker 2, .* max_staleness 2",
    ):
        step(center, 1, 2)
    assert center.copy().tolist() == [-1] * 3


@pytest.mark.parametrize("event", ["push", "leave", "restart", "withdraw", "close"])
def test_waiting_ends_as_soon_as_it_may(event: str) -> None:
    center = bounded(2, 1)
    step(center, 0, 1)
    waiting = threading.Thread(target=step, args=(center, 0, 2))
    waiting.start()
    waiting.join(timeout=0.1)  # it waits by then, most likely
    {
        "push": lambda: step(center, 1, 1),
        "leave": lambda: center.leave(1, 1),
        "restart": lambda: center.register(1),
        "withdraw": lambda: center.withdraw(1),
        "close": center.close,
    }[event]()
    waiting.join(timeout=20)
    assert not waiting.is_alive()
    assert center.copy().tolist() == [-3 if event == "push" else -2] * 3


def test_a_repeated_push_does_not_wait() -> None:
    center = bounded(2, 1)
    assert step(center, 0, 1) == 0
    assert step(center, 0, 1) == 0
    assert center.copy().tolist() == [-1] * 3
