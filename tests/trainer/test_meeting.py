"""Averages through the driver: by threads that stand for workers, and over the wire."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch
from desks import SIZE, make_desk
from pyarrow import flight
from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import PeerLostError, Place, Traffic
from trainer.parameter_server import wire
from trainer.parameter_server.client import FlightGroup, FlightLink
from trainer.parameter_server.meeting import Meeting
from trainer.parameter_server.service import serving

THERE = Place("there", 4711)
LONG_S = 60.0


def together(calls: list[Callable[[], Any]]) -> list[Future[Any]]:
    """Run calls in threads, all at once, and wait for their ends."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [pool.submit(call) for call in calls]


def bringing(meeting: Meeting, rank: int, number: int, values: Tensor) -> Callable[[], Tensor]:
    return lambda: meeting.meet(rank, 1, number, values.clone)


def begun(meeting: Meeting, ranks: set[int]) -> None:
    """Wait until workers have brought what they bring."""
    with meeting._changed:
        assert meeting._changed.wait_for(lambda: set(meeting._era.came) == ranks, LONG_S)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_all_get_the_mean_again_and_again(size: int) -> None:
    meeting = Meeting(size, LONG_S)
    for number in range(1, 4):
        brought = [torch.randn(SIZE) for _ in range(size)]
        calls = [bringing(meeting, rank, number, each) for rank, each in enumerate(brought)]
        expected = torch.stack(brought).double().mean(0)
        for future in together(calls):
            assert torch.allclose(future.result().double(), expected, rtol=1e-6, atol=1e-7)


def test_the_mean_of_two_is_that_of_any_order() -> None:
    a, b = torch.randn(1000), torch.randn(1000)
    meeting = Meeting(2, LONG_S)
    calls = [bringing(meeting, 0, 1, a), bringing(meeting, 1, 1, b)]
    for future in together(calls):
        assert torch.equal(future.result(), a.clone().add_(b).div_(2))


def test_call_that_is_repeated_gets_the_same_mean_and_counts_once() -> None:
    meeting = Meeting(2, LONG_S)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(bringing(meeting, 0, 1, torch.tensor([2.0])))
        begun(meeting, {0})
        again = pool.submit(bringing(meeting, 0, 1, torch.tensor([1000.0])))
        last = pool.submit(bringing(meeting, 1, 1, torch.tensor([4.0])))
        assert [each.result().item() for each in (first, again, last)] == [3.0] * 3
    assert bringing(meeting, 1, 1, torch.tensor([1000.0]))().item() == 3.0


def test_call_that_breaks_off_can_be_made_again() -> None:
    meeting = Meeting(2, LONG_S)

    def break_off() -> Tensor:
        raise TrainerError("cut")

    with pytest.raises(TrainerError, match="cut"):
        meeting.meet(0, 1, 1, break_off)
    calls = [bringing(meeting, rank, 1, torch.tensor([rank + 1.0])) for rank in range(2)]
    assert [future.result().item() for future in together(calls)] == [1.5, 1.5]


def test_call_takes_the_turn_over_from_one_of_the_same_worker_that_is_stuck() -> None:
    meeting, stuck, release = Meeting(2, LONG_S), threading.Event(), threading.Event()

    def wait_long() -> Tensor:
        stuck.set()
        assert release.wait(LONG_S)
        return torch.tensor([1000.0])

    with ThreadPoolExecutor(3) as pool:
        old = pool.submit(meeting.meet, 0, 1, 1, wait_long)
        assert stuck.wait(LONG_S)
        new = pool.submit(bringing(meeting, 0, 1, torch.tensor([2.0])))
        begun(meeting, {0})
        release.set()
        with pytest.raises(TrainerError, match="later call has taken the place"):
            old.result()
        assert bringing(meeting, 1, 1, torch.tensor([4.0]))().item() == 3.0
        assert new.result().item() == 3.0


def test_only_one_tensor_is_brought_at_a_time() -> None:
    size = 6
    meeting, lock, most = Meeting(size, LONG_S), threading.Lock(), []

    def bring() -> Tensor:
        most.append(lock.acquire(blocking=False))
        lock.release()
        return torch.ones(3)

    calls = [lambda rank=rank: meeting.meet(rank, 1, 1, bring) for rank in range(size)]
    for future in together(calls):
        assert future.result().tolist() == [1.0] * 3
    assert most == [True] * size


def test_those_who_do_not_come_are_named() -> None:
    meeting = Meeting(4, 0.2)
    calls = [bringing(meeting, rank, 1, torch.ones(2)) for rank in (0, 2)]
    for future in together(calls):
        with pytest.raises(PeerLostError, match=r"worker 1 and worker 3 did not come within 0.2 s"):
            future.result()


def test_one_that_is_stuck_while_it_brings_is_named() -> None:
    meeting, stuck, release = Meeting(2, 0.2), threading.Event(), threading.Event()

    def wait_long() -> Tensor:
        stuck.set()
        assert release.wait(LONG_S)
        return torch.ones(2)

    with ThreadPoolExecutor(1) as pool:
        old = pool.submit(meeting.meet, 1, 1, 1, wait_long)
        assert stuck.wait(LONG_S)
        with pytest.raises(PeerLostError, match=r"^worker 1 did not come"):
            meeting.meet(0, 1, 1, lambda: torch.ones(2))
        release.set()
        with pytest.raises(PeerLostError, match=r"^worker 0 did not come"):
            old.result()


@pytest.mark.parametrize(("end", "message"), [("close", "has ended"), ("reset", "begin anew")])
def test_those_who_wait_are_sent_away_at_the_end(end: str, message: str) -> None:
    meeting = Meeting(2, LONG_S)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(bringing(meeting, 0, 1, torch.ones(2)))
        begun(meeting, {0})
        getattr(meeting, end)()
        with pytest.raises(PeerLostError, match=message):
            waiting.result()


def test_workers_begin_anew_after_a_reset() -> None:
    meeting = Meeting(2, LONG_S)
    for future in together([bringing(meeting, rank, 1, torch.ones(2)) for rank in range(2)]):
        future.result()
    meeting.reset()
    calls = [bringing(meeting, rank, 1, torch.full((2,), 4.0)) for rank in range(2)]
    assert [future.result().tolist() for future in together(calls)] == [[4.0, 4.0]] * 2


def test_a_new_attempt_does_not_add_to_what_its_forerunner_brought() -> None:
    meeting = Meeting(2, LONG_S)
    with ThreadPoolExecutor(1) as pool:
        old = pool.submit(bringing(meeting, 0, 1, torch.ones(2)))
        begun(meeting, {0})
        with pytest.raises(PeerLostError, match="worker 0 was replaced"):
            meeting.meet(0, 2, 1, lambda: torch.ones(2))
        with pytest.raises(PeerLostError, match="begin anew"):
            old.result()


@pytest.mark.parametrize("number", [0, 2, 7])
def test_call_of_another_meeting_is_refused(number: int) -> None:
    meeting = Meeting(2, LONG_S)
    with pytest.raises(TrainerError, match=f"expected a call of meeting 1; received {number}"):
        meeting.meet(0, 1, number, lambda: torch.ones(2))


@pytest.mark.parametrize("other", [torch.ones(3), torch.ones(2, dtype=torch.float64)])
def test_tensors_that_do_not_fit_are_refused_and_not_counted(other: Tensor) -> None:
    meeting = Meeting(2, LONG_S)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(bringing(meeting, 0, 1, torch.tensor([1.0, 2.0])))
        begun(meeting, {0})
        with pytest.raises(TrainerError, match=r"worker 1: expected 2 values of torch\.float32"):
            meeting.meet(1, 1, 1, other.clone)
        mean = meeting.meet(1, 1, 1, lambda: torch.tensor([3.0, 4.0]))
        assert mean.tolist() == waiting.result().tolist() == [2.0, 3.0]


# Over the wire.


@pytest.mark.parametrize("encrypted", [False, True])
def test_groups_of_links_average_what_they_are_given(encrypted: bool) -> None:
    desk = make_desk()
    with serving(desk, "127.0.0.1", encrypted=encrypted) as address:
        links = [FlightLink(address, rank, timeout_s=20) for rank in range(2)]
        groups = [FlightGroup(link, 2) for link in links]
        weights = [torch.randn(SIZE) for _ in links]
        expected = weights[0].clone().add_(weights[1]).div_(2)
        figures = [torch.tensor([2.0**40 + rank, rank], dtype=torch.float64) for rank in range(2)]

        def run(rank: int) -> None:
            links[rank].start(THERE)
            groups[rank].mean_(weights[rank])
            groups[rank].mean_(figures[rank])

        for future in together([lambda: run(0), lambda: run(1)]):
            future.result()
        assert torch.equal(weights[0], expected)
        assert torch.equal(weights[1], expected)
        assert [each.tolist() for each in figures] == [[2.0**40 + 0.5, 0.5]] * 2
        received = 4 * SIZE * (1 + 1 + 1) + 8 * 2  # start: parameters and a history
        assert links[0].traffic == Traffic(sent=4 * SIZE + 8 * 2, received=received)
        for link in links:
            link.close()


def test_answer_that_is_lost_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.parameter_server.flight_client._PAUSE_S", 0.0)
    receive, lost = wire.receive_message, []

    def lose(reader: Any) -> dict[str, Any]:
        message = receive(reader)
        if "attempt" not in message and len(lost) < 1:
            lost.append(message)
            raise flight.FlightUnavailableError("cut")
        return message

    desk = make_desk()
    with serving(desk, "127.0.0.1") as address:
        links = [FlightLink(address, rank, timeout_s=20) for rank in range(2)]
        for link in links:
            link.start(THERE)
        monkeypatch.setattr(wire, "receive_message", lose)
        tensors = [torch.full((SIZE,), value) for value in (2.0, 4.0)]
        for number in range(2):
            calls = [lambda rank=rank: links[rank].meet(tensors[rank]) for rank in range(2)]
            for future in together(calls):
                future.result()
            assert [each.tolist() for each in tensors] == [[3.0] * SIZE] * 2
            assert len(lost) == 1, number
        for link in links:
            link.close()


def test_lost_peer_is_known_as_such_on_the_other_side() -> None:
    with serving(make_desk(wait_timeout_s=0.2), "127.0.0.1") as address:
        link = FlightLink(address, 0, timeout_s=20)
        link.start(THERE)
        with pytest.raises(PeerLostError, match=r"worker 1 did not come within 0\.2 s"):
            link.meet(torch.ones(SIZE))
        link.close()


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(SIZE + 1000), "expected at most 7 values"),
        (torch.full((SIZE,), float("nan")), "diverges"),
        (torch.ones(SIZE, dtype=torch.int64), "expected tensors of float32"),
    ],
)
def test_what_cannot_be_averaged_is_refused(tensor: Tensor, message: str) -> None:
    with serving(make_desk(), "127.0.0.1") as address:
        link = FlightLink(address, 0, timeout_s=20)
        link.start(THERE)
        with pytest.raises(TrainerError, match=message) as caught:
            link.meet(tensor)
        assert not isinstance(caught.value, PeerLostError)
        link.close()
