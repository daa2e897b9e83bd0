"""What workers hand over for a checkpoint, on its way to whoever keeps it."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from desks import SIZE, make_desk
from torch import Tensor

from trainer.errors import TrainerError
from trainer.links import Place
from trainer.parameter_server import wire
from trainer.parameter_server.client import FlightLink
from trainer.parameter_server.service import serving

THERE = Place("there", 4711)
VALUES = {"cursor": 5, "losses": [0.5, float("inf")], "name": "ä"}


class Shelf:
    """Keeps what comes, and the lengths of the parts in which it comes."""

    wants_deposits = True

    def __init__(self, most: int = 100) -> None:
        self.kept: list[tuple[int, int, Mapping[str, Any], list[float]]] = []
        self.lengths: list[int] = []
        self._most = most

    def deposit(
        self, rank: int, iteration: int, values: Mapping[str, Any], chunks: Iterator[Tensor]
    ) -> None:
        flat: list[float] = []
        for chunk in chunks:
            self.lengths.append(len(chunk))
            flat.extend(chunk.tolist())
            if len(flat) >= self._most:
                break
        self.kept.append((rank, iteration, values, flat))


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def link(shelf: Shelf) -> Iterator[FlightLink]:
    with serving(make_desk(depository=shelf), "127.0.0.1") as address:
        link = FlightLink(address, 1, timeout_s=20)
        link.start(THERE)
        yield link
        link.close()


def test_deposit_comes_in_parts(
    link: FlightLink, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_CHUNK", 5)
    tensors = [torch.arange(SIZE) + 100.0 * number for number in range(3)]
    link.deposit(30, VALUES, tensors)
    assert shelf.kept == [(1, 30, VALUES, torch.cat(tensors).tolist())]
    assert shelf.lengths == [5, 2] * 3


@pytest.mark.parametrize("count", [0, 1])
def test_smallest_deposits(link: FlightLink, shelf: Shelf, count: int) -> None:
    link.deposit(0, {}, [torch.ones(SIZE)] * count)
    assert shelf.kept == [(1, 0, {}, [1.0] * SIZE * count)]


@pytest.mark.parametrize(
    ("announced", "sent", "message"),
    [
        (2, [torch.ones(SIZE)], "expected 14 values; received 7"),
        (1, [torch.ones(SIZE)] * 2, "expected 7 values; received more"),
        (1, [torch.ones(SIZE - 1)], "expected 7 values; received 6"),
        (1, [torch.full((SIZE,), float("nan"))], "diverges"),
        (-1, [], "expected a whole number"),
    ],
)
def test_deposit_that_is_not_what_it_says_is_refused(
    link: FlightLink, shelf: Shelf, announced: int, sent: list[Tensor], message: str
) -> None:
    fields = {"iteration": 5, "values": {}, "tensors": announced}
    with pytest.raises(TrainerError, match=message):
        link._exchange("deposit", fields, sent)
    assert shelf.kept == []
    link.deposit(5, {}, [torch.ones(SIZE)])
    assert len(shelf.kept) == 1


def test_deposit_is_checked_to_its_end_even_if_nobody_reads_it() -> None:
    with serving(make_desk(depository=Shelf(most=0)), "127.0.0.1") as address:
        link = FlightLink(address, 1, timeout_s=20)
        link.start(THERE)
        link.deposit(5, {}, [torch.ones(SIZE)] * 3)
        with pytest.raises(TrainerError, match="received 14"):
            link._exchange(
                "deposit", {"iteration": 5, "values": {}, "tensors": 3}, [torch.ones(SIZE)] * 2
            )
        link.close()


def test_run_without_checkpoints_takes_no_deposit() -> None:
    with serving(make_desk(), "127.0.0.1") as address:
        link = FlightLink(address, 1, timeout_s=20)
        link.start(THERE)
        with pytest.raises(TrainerError, match="makes no checkpoints"):
            link.deposit(5, {}, [torch.ones(SIZE)])
        link.close()


def test_values_that_are_too_long_are_refused_before_they_are_sent(
    link: FlightLink, shelf: Shelf
) -> None:
    with pytest.raises(TrainerError, match="expected a message of at most 1048576 bytes"):
        link.deposit(5, {"much": "x" * (1 << 20)}, [torch.ones(SIZE)])
    assert shelf.kept == []
