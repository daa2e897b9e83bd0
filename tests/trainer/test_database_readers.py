"""What the readers of both backends do alike: order, parts, positions."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from database_readers import read

from trainer.data.database import BACKENDS, DatabaseReader, open_database, write_database

Open = Callable[..., DatabaseReader]


@pytest.fixture(params=BACKENDS)
def seven(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Return what opens a part of a database of seven entries."""
    values = [(b"%03d" % number, b"v%d" % number) for number in range(7)]
    write_database(tmp_path / "seven", values, request.param)
    return partial(open_database, tmp_path / "seven", request.param)


def test_reader_goes_round_in_key_order(seven: Open) -> None:
    reader = seven()
    assert (reader.count, reader.begin, reader.end, reader.key) == (7, 0, 7, b"000")
    assert read(reader, 9) == [b"v0", b"v1", b"v2", b"v3", b"v4", b"v5", b"v6", b"v0", b"v1"]
    assert reader.entry == 2
    reader.close()


def test_parts_cover_the_database_once_and_go_round_each(seven: Open) -> None:
    readers = [seven(rank, 3) for rank in range(3)]
    assert [(reader.begin, reader.end) for reader in readers] == [(0, 2), (2, 4), (4, 7)]
    assert [read(reader, 4) for reader in readers] == [
        [b"v0", b"v1", b"v0", b"v1"],
        [b"v2", b"v3", b"v2", b"v3"],
        [b"v4", b"v5", b"v6", b"v4"],
    ]
    for reader in readers:
        reader.close()
        reader.close()


@pytest.mark.parametrize("key", [None, b"005"])
def test_seek_goes_to_an_entry_and_on_from_there(seven: Open, key: bytes | None) -> None:
    reader = seven(1, 2)
    reader.seek(5, key)
    assert (reader.entry, reader.key) == (5, b"005")
    assert read(reader, 4) == [b"v5", b"v6", b"v3", b"v4"]
    reader.close()
