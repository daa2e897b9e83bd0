"""The LevelDB writer: what it writes, and what is left when it cannot."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from leveldb_databases import entries

from trainer.data import leveldb_writer
from trainer.data.database import write_database
from trainer.data.entries import Entry
from trainer.data.leveldb_version import read_version
from trainer.errors import DataError, UsageError


def some_entries(count: int, seed: int = 3) -> list[Entry]:
    random = np.random.default_rng(seed)
    return [
        (b"%05d" % number, random.bytes(int(random.integers(0, 9000)))) for number in range(count)
    ]


def test_entries_are_written_in_full(tmp_path: Path) -> None:
    written = some_entries(300)
    target = tmp_path / "new" / "some_leveldb"
    assert write_database(target, iter(written), "leveldb") == 300
    assert entries(target) == written
    assert sorted(file.name for file in target.iterdir()) == [
        "000001.ldb",
        "CURRENT",
        "MANIFEST-000002",
    ]
    assert [file.name for file in target.parent.iterdir()] == ["some_leveldb"]


@pytest.fixture
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leveldb_writer, "_TABLE_BYTES", 50_000)


@pytest.mark.usefixtures("small_tables")
def test_keys_in_order_need_no_compaction(tmp_path: Path) -> None:
    written = some_entries(100)
    write_database(tmp_path / "a", written, "leveldb")
    levels = [level for level, _ in read_version(tmp_path / "a").tables]
    assert len(levels) > 5
    assert set(levels) == {6}
    assert entries(tmp_path / "a") == written


@pytest.mark.usefixtures("small_tables")
def test_keys_may_come_in_any_order_and_again(tmp_path: Path) -> None:
    first, second = some_entries(100), some_entries(60, seed=8)
    order = np.random.default_rng(5).permutation(100)
    stream = [*(first[place] for place in order), *second]
    assert write_database(tmp_path / "a", stream, "leveldb") == 100
    assert {level for level, _ in read_version(tmp_path / "a").tables} == {0}
    assert entries(tmp_path / "a") == second + first[60:]


def test_a_database_may_be_empty(tmp_path: Path) -> None:
    assert write_database(tmp_path / "a", [], "leveldb") == 0
    assert read_version(tmp_path / "a").tables == {}


def test_an_existing_target_is_kept(tmp_path: Path) -> None:
    write_database(tmp_path / "a", [(b"k", b"v")], "leveldb")
    with pytest.raises(UsageError, match=r"a: exists already; remove it or choose another"):
        write_database(tmp_path / "a", [(b"k", b"w")], "leveldb")
    assert entries(tmp_path / "a") == [(b"k", b"v")]


@pytest.mark.usefixtures("small_tables")
def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Entry]:
        yield from some_entries(100)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_database(tmp_path / "a", broken(), "leveldb")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/a: writing failed .*choose another folder"):
        write_database(tmp_path / "file" / "a", [(b"k", b"v")], "leveldb")
