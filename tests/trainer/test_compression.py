"""Exchanges in half the bytes: what arrives, what is made good later, and what does not fit."""

from collections.abc import Iterator

import pytest
import torch
from desks import make_desk
from torch import Tensor

from trainer.compression import CompressedLink, narrowed
from trainer.errors import TrainerError
from trainer.links import Move, Place, Pull, Traffic
from trainer.parameter_server.client import FlightLink
from trainer.parameter_server.desk import Desk
from trainer.parameter_server.service import serving
from trainer.strategies.arithmetic import Layout

THERE = Place("there", 4711)
SIZE = 11
WEIGHTS, STATISTICS = slice(0, 8), slice(8, SIZE)
LAYOUT = Layout((WEIGHTS,), (STATISTICS,))
NARROW = [torch.float16, torch.bfloat16]
ADD = Move("subtract", 1.0)


class Adding:
    """A centre that adds up what it gets, as it gets it."""

    traffic = Traffic(5, 7)

    def __init__(self) -> None:
        self.total = torch.zeros(SIZE)
        self.came: list[Tensor] = []

    def exchange(
        self, sent: Tensor, move: Move, iteration: int, *, is_answered: bool = True
    ) -> Pull:
        self.came.append(sent.clone())
        self.total += sent
        return Pull(self.total.clone(), 3)

    def fetch(self) -> Tensor:
        return self.total

    def shared(self) -> Tensor:
        return self.total


@pytest.mark.parametrize("dtype", NARROW)
def test_errors_of_weights_are_made_good_and_do_not_add_up(dtype: torch.dtype) -> None:
    center = Adding()
    link = CompressedLink(center, dtype, LAYOUT)
    sent, times = torch.rand(SIZE) + 1, 200
    for iteration in range(times):
        link.exchange(sent, ADD, iteration)
    assert {came.dtype for came in center.came} == {dtype}
    error = (center.total - times * sent).abs()
    one = torch.finfo(dtype).eps  # of values below 2
    assert error[WEIGHTS].max() < 2 * one
    naive = times * (sent.to(dtype).float() - sent).abs()
    assert naive[WEIGHTS].max() > 10 * one
    assert torch.allclose(error[STATISTICS], naive[STATISTICS], atol=one / 10)


@pytest.mark.parametrize("dtype", NARROW)
def test_what_is_too_small_for_one_exchange_arrives_in_time(dtype: torch.dtype) -> None:
    center = Adding()
    link = CompressedLink(center, dtype, LAYOUT)
    big = torch.full((SIZE,), 1.0)
    link.exchange(big + 1e-4, ADD, 0)
    assert torch.equal(center.came[0], big.to(dtype))
    for iteration in range(1, 100):
        link.exchange(torch.full((SIZE,), 1e-4), ADD, iteration)
    assert torch.allclose(center.total[WEIGHTS], big[WEIGHTS] + 1e-2, atol=1e-5)


@pytest.mark.parametrize("dtype", NARROW)
def test_answer_is_rounded_once(dtype: torch.dtype) -> None:
    center = Adding()
    center.total += torch.randn(SIZE)
    pull = CompressedLink(center, dtype, LAYOUT).exchange(torch.zeros(SIZE), ADD, 1)
    assert (pull.center.dtype, pull.staleness) == (torch.float32, 3)
    assert torch.equal(pull.center, center.total.to(dtype).float())
    assert torch.equal(CompressedLink(center, dtype, LAYOUT).fetch(), center.total)
    assert CompressedLink(center, dtype, LAYOUT).shared() is center.total
    assert CompressedLink(center, dtype, LAYOUT).traffic == center.traffic


def test_values_too_large_for_float16_are_refused_by_the_worker() -> None:
    center = Adding()
    link = CompressedLink(center, torch.float16, LAYOUT)
    with pytest.raises(TrainerError, match=r"7e\+04 cannot be .* 6.55e\+04: exchange in bfloat16"):
        link.exchange(torch.full((SIZE,), -7e4), ADD, 1)
    assert center.came == []
    CompressedLink(center, torch.bfloat16, LAYOUT).exchange(torch.full((SIZE,), -7e4), ADD, 1)
    assert len(center.came) == 1


@pytest.mark.parametrize("dtype", NARROW)
def test_narrowing_is_exact_where_it_can_be(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, -2.5, 2.0**-14, 65280.0])
    assert torch.equal(narrowed(values, dtype).float(), values)
    odd = torch.tensor([float("nan"), 1.0])
    assert narrowed(odd, dtype).isnan().tolist() == [True, False]
    assert narrowed(torch.tensor([float("inf")]), dtype).isinf().all()
    assert narrowed(torch.empty(0), dtype).dtype == dtype
    with pytest.raises(TrainerError, match=r"exchange in (bfloat16|float32)"):
        narrowed(torch.tensor([3.4028e38]), dtype)


# Over the wire.


@pytest.fixture
def desk() -> Desk:
    return make_desk(size=SIZE)


@pytest.fixture
def link(desk: Desk) -> Iterator[FlightLink]:
    with serving(desk, "127.0.0.1") as address:
        link = FlightLink(address, 0, timeout_s=20)
        link.start(THERE)
        yield link
        link.close()


@pytest.mark.parametrize("dtype", NARROW)
def test_exchanges_travel_in_half_the_bytes(
    desk: Desk, link: FlightLink, dtype: torch.dtype
) -> None:
    before, sent = link.traffic, torch.randn(SIZE)
    narrow = CompressedLink(link, dtype, LAYOUT)
    pull = narrow.exchange(sent, Move("elastic", 1.0), 1)
    assert pull.center.tolist() == list(range(SIZE))
    assert torch.equal(desk.center.copy(), sent.to(dtype).float())
    pull = narrow.exchange(sent, Move("elastic", 0.0), 2)
    assert torch.equal(pull.center, desk.center.copy().to(dtype).float())
    assert (link.traffic.sent - before.sent, link.traffic.received - before.received) == (
        2 * 2 * SIZE,
        2 * 2 * SIZE,
    )


def test_pushes_without_tensors_travel_too(desk: Desk, link: FlightLink) -> None:
    narrow = CompressedLink(link, torch.float16, LAYOUT)
    narrow.exchange(torch.empty(0), Move("count"), 5, is_answered=False)
    assert desk.center.worker_iterations == 5


def test_centre_too_large_for_float16_is_refused_by_the_driver(
    desk: Desk, link: FlightLink
) -> None:
    link.exchange(torch.full((SIZE,), 7e4), Move("elastic", 1.0), 1)
    narrow = CompressedLink(link, torch.float16, LAYOUT)
    with pytest.raises(TrainerError, match="exchange in bfloat16"):
        narrow.exchange(torch.ones(SIZE), Move("elastic", 0.0), 2)
    assert link.fetch().tolist() == [7e4] * SIZE


def test_nan_is_refused_by_the_centre(desk: Desk, link: FlightLink) -> None:
    narrow = CompressedLink(link, torch.bfloat16, LAYOUT)
    with pytest.raises(TrainerError, match="diverges"):
        narrow.exchange(torch.full((SIZE,), float("nan")), Move("elastic", 1.0), 2)
    assert desk.center.copy().tolist() == list(range(SIZE))
