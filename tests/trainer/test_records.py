"""Measurements cut to what a call holds."""

from collections.abc import Iterator

import pytest
from desks import make_desk

from trainer.links import Control, Place
from trainer.parameter_server.client import FlightLink
from trainer.parameter_server.desk import Desk
from trainer.parameter_server.records import LONGEST_TEXT, portions, read_records
from trainer.parameter_server.service import serving

DONE = {"kind": "progress", "iteration": 5, "batch": 3, "loss": 0.5}
LOG = {"kind": "log", "level": 30, "message": "x"}


@pytest.fixture
def desk() -> Desk:
    return make_desk()


@pytest.fixture
def link(desk: Desk) -> Iterator[FlightLink]:
    with serving(desk, "127.0.0.1") as address:
        link = FlightLink(address, 1, timeout_s=20)
        link.start(Place("there", 4711))
        yield link
        link.close()


def test_records_come_in_few_portions_and_in_order() -> None:
    assert list(portions([])) == [[]]
    records = [DONE | {"iteration": number} for number in range(9000)]
    parts = list(portions(records))
    assert [record for part in parts for record in part] == records
    assert 2 <= len(parts) <= 5
    assert all(parts)


def test_many_and_long_records_arrive(desk: Desk, link: FlightLink) -> None:
    long = LOG | {"message": "\U0001f600" * 3 * LONGEST_TEXT}  # 12 bytes each, as JSON has it
    records = [DONE | {"iteration": number} for number in range(9000)] + [long] * 20
    assert link.report(records) == Control()
    came = desk.take_records()
    assert [record["iteration"] for record in came[:9000]] == list(range(9000))
    assert [len(record["message"]) for record in came[9000:]] == [LONGEST_TEXT] * 20


def test_long_reasons_of_an_end_arrive(desk: Desk, link: FlightLink) -> None:
    link.fail("ä" * 500_000, "line\n" * 500_000, is_lost_peer=False)
    words = desk.roster.own_words()
    assert words is not None
    assert words.count("ä") == LONGEST_TEXT


def test_loss_may_be_missing_or_diverge() -> None:
    records = [DONE | {"loss": None}, DONE | {"loss": float("inf")}, DONE | {"loss": 2}]
    assert read_records(records) == records
