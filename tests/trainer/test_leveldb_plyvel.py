"""LevelDB itself, through plyvel: it reads what we write, and we read what it wrote."""

import random
import sys
from pathlib import Path

import pytest
from leveldb_databases import entries

from trainer.data import leveldb_table, leveldb_writer
from trainer.data.database import write_database
from trainer.data.leveldb_index import LevelDbIndex
from trainer.data.leveldb_table import BlockHandle
from trainer.data.leveldb_version import read_version

if sys.version_info >= (3, 13):
    pytest.skip("plyvel has no wheel for this Python", allow_module_level=True)

import plyvel


def content(path: Path) -> list[tuple[bytes, bytes]]:
    database = plyvel.DB(str(path), paranoid_checks=True)
    try:
        return list(database.iterator(verify_checksums=True))
    finally:
        database.close()


def value(source: random.Random) -> bytes:
    """Return noise, or something that compresses."""
    length = source.choice([0, 3, 70, 900, 5000, 20_000])
    if source.random() < 0.5:
        return source.randbytes(length)
    return (source.randbytes(5) * (length // 5 + 1))[:length]


@pytest.mark.parametrize("compression", ["snappy", None])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_leveldb_wrote_is_read(seed: int, compression: str | None, tmp_path: Path) -> None:
    source = random.Random(seed)
    expected: dict[bytes, bytes] = {}
    folder = tmp_path / "database"
    for _ in range(4):
        database = plyvel.DB(
            str(folder),
            create_if_missing=True,
            compression=compression,
            write_buffer_size=200_000,
            max_file_size=2**20,
        )
        for _ in range(300):
            key = b"%d" % source.randrange(400)
            if source.random() < 0.25:
                database.delete(key)
                expected.pop(key, None)
            else:
                expected[key] = value(source)
                database.put(key, expected[key])
        if source.random() < 0.3:
            database.compact_range()
        database.close()
        assert entries(folder) == sorted(expected.items())
    assert read_version(folder).tables


def test_large_batches_lie_in_the_log(tmp_path: Path) -> None:
    source = random.Random(9)
    expected = {b"%04d" % number: source.randbytes(3073) for number in range(500)}
    database = plyvel.DB(str(tmp_path / "database"), create_if_missing=True)
    with database.write_batch() as batch:
        for key, content_ in expected.items():
            batch.put(key, content_)
    database.close()
    assert not read_version(tmp_path / "database").tables
    assert entries(tmp_path / "database") == list(expected.items())


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_leveldb_reads_what_we_write_and_goes_on_from_there(
    is_shuffled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leveldb_writer, "_TABLE_BYTES", 100_000)
    source = random.Random(4)
    written = [(b"%08d_name" % number, value(source)) for number in range(400)]
    folder = tmp_path / "database"
    stream = source.sample(written, len(written)) if is_shuffled else written
    write_database(folder, stream, "leveldb")
    assert content(folder) == written
    database = plyvel.DB(str(folder))
    database.put(b"00000007_name", b"new")
    database.delete(b"00000009_name")
    database.compact_range()
    database.close()
    changed = dict(written) | {b"00000007_name": b"new"}
    del changed[b"00000009_name"]
    assert content(folder) == sorted(changed.items())
    assert entries(folder) == sorted(changed.items())


def test_an_empty_database_opens(tmp_path: Path) -> None:
    write_database(tmp_path / "database", [], "leveldb")
    assert content(tmp_path / "database") == []


@pytest.mark.parametrize("compression", ["snappy", None])
def test_opening_passes_over_large_values(
    compression: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random.Random(6)
    expected = {b"%04d" % number: source.randbytes(30_000) for number in range(50)}
    database = plyvel.DB(
        str(tmp_path / "database"), create_if_missing=True, compression=compression
    )
    for key, noise in expected.items():
        database.put(key, noise)
    database.compact_range()
    database.close()
    read: list[int] = []

    def read_block(handle: int, block: BlockHandle) -> bytes:
        read.append(block.size)
        return leveldb_table_read_block(handle, block)

    leveldb_table_read_block = leveldb_table.read_block
    monkeypatch.setattr(leveldb_table, "read_block", read_block)
    index = LevelDbIndex(tmp_path / "database")
    assert index.keys == list(expected)
    assert len(read) == len(read_version(tmp_path / "database").tables)  # their lists of blocks
    assert entries(tmp_path / "database") == list(expected.items())
