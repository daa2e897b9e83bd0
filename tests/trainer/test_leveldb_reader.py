"""The LevelDB reader: recorded databases, order, parts, and databases that are none."""

import os
import re
from pathlib import Path

import pytest
from leveldb_databases import GOLDEN_DATABASES, copy_of, entries

from trainer.data.database import open_database, write_database
from trainer.data.leveldb_coding import masked_crc, write_bytes, write_varint
from trainer.data.leveldb_log import format_record
from trainer.data.leveldb_reader import LevelDbReader
from trainer.errors import DataError


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("raw_leveldb", "raw_lmdb"),
        ("fresh_leveldb", "raw_lmdb"),
        ("float_leveldb", "float_lmdb"),
    ],
)
def test_recorded_databases_hold_what_their_lmdbs_do(name: str, same: str) -> None:
    found = entries(GOLDEN_DATABASES / name)
    assert len(found) == 12
    assert found == entries(GOLDEN_DATABASES / same, "lmdb")


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    values = [(b"%03d" % number, b"v%d" % number) for number in range(7)]
    write_database(tmp_path / "seven_leveldb", values, "leveldb")
    return tmp_path / "seven_leveldb"


def test_seek_refuses_another_key(seven: Path) -> None:
    reader = LevelDbReader(seven, 1, 2)
    reader.seek(5, b"005")
    with pytest.raises(DataError, match=r"entry 4 of 7 is not b'005': the database has changed"):
        reader.seek(4, b"005")
    reader.close()


def test_too_few_entries_are_refused(seven: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"each of 8 workers; it holds 7"):
        LevelDbReader(seven, 0, 8)
    write_database(tmp_path / "empty", [], "leveldb")
    with pytest.raises(DataError, match=r"empty: the database is empty"):
        LevelDbReader(tmp_path / "empty")


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir()}


def test_reading_writes_nothing(tmp_path: Path) -> None:
    database = copy_of("fresh_leveldb", tmp_path)
    before = state(database)
    assert len(entries(database)) == 12
    assert state(database) == before


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: expected the directory of a LevelDB"):
        LevelDbReader(tmp_path / "gone")
    with pytest.raises(DataError, match=r"holds no file CURRENT"):
        LevelDbReader(tmp_path)


def test_the_other_backend_is_named(seven: Path) -> None:
    with pytest.raises(DataError, match=r"expected the backend LMDB, found CURRENT.* of LEVELDB"):
        open_database(seven, "LMDB")
    with pytest.raises(DataError, match=r"expected the backend LEVELDB, found data.mdb.* of LMDB"):
        open_database(GOLDEN_DATABASES / "raw_lmdb", "LEVELDB")


FILES = [
    ("raw_leveldb", "000005.ldb"),
    ("raw_leveldb", "MANIFEST-000007"),
    ("raw_leveldb", "CURRENT"),
    ("fresh_leveldb", "000003.log"),
    ("fresh_leveldb", "MANIFEST-000002"),
]


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_file_that_was_cut_off_is_refused_at_any_length(
    name: str, file: str, tmp_path: Path
) -> None:
    size = (GOLDEN_DATABASES / name / file).stat().st_size
    # Nothing tells an empty log from one to which nothing was written: the database is empty.
    lengths = {0, 1, 6, 7, 8, 12, size // 2, size - 50, size - 8, size - 1}
    for length in sorted(length for length in lengths if 0 <= length < size):
        database = copy_of(name, tmp_path / str(length))
        os.truncate(database / file, length)
        with pytest.raises(DataError, match=rf"{file}: the LevelDB cannot be read|is empty"):
            entries(database)


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_changed_byte_is_found(name: str, file: str, tmp_path: Path) -> None:
    content = (GOLDEN_DATABASES / name / file).read_bytes()
    for number, place in enumerate(range(0, len(content) - 60, len(content) // 7 + 1)):
        database = copy_of(name, tmp_path / str(number))
        spoilt = bytearray(content)
        spoilt[place] ^= 0x5A
        (database / file).write_bytes(spoilt)
        with pytest.raises(DataError, match=re.escape(str(database))):
            entries(database)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    database = copy_of("raw_leveldb", tmp_path)
    (database / "000005.ldb").unlink()
    with pytest.raises(DataError, match=r"000005.ldb: .*No such file.*copy the database again"):
        LevelDbReader(database)


def test_tables_may_have_their_old_name(tmp_path: Path) -> None:
    database = copy_of("raw_leveldb", tmp_path)
    (database / "000005.ldb").rename(database / "000005.sst")
    assert entries(database) == entries(GOLDEN_DATABASES / "raw_leveldb")


def test_a_table_that_goes_away_while_it_is_read_is_reported(seven: Path) -> None:
    reader = LevelDbReader(seven)
    (seven / "000001.ldb").unlink()
    with pytest.raises(DataError, match=r"000001.ldb"):
        _ = reader.value
    reader.close()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (write_varint(1) + write_bytes(b"mine"), r"its order of keys is b'mine'"),
        (write_varint(8), r"an entry of the unknown kind 8"),
        (write_varint(7) + b"\0\5", r"IndexError|index out of range"),
    ],
)
def test_a_foreign_list_of_files_is_refused(edit: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "MANIFEST-000002").write_bytes(format_record(edit))
    (tmp_path / "CURRENT").write_text("MANIFEST-000002\n")
    with pytest.raises(DataError, match=message):
        LevelDbReader(tmp_path)


def test_an_unknown_compression_is_named(seven: Path) -> None:
    table = seven / "000001.ldb"
    content = bytearray(table.read_bytes())
    reader = LevelDbReader(seven)
    place = reader._index.place(0)
    reader.close()
    del reader
    end = place.offset + place.size
    content[end] = 2
    block = bytes(content[place.offset : end + 1])
    content[end + 1 : end + 5] = masked_crc(block).to_bytes(4, "little")
    table.write_bytes(content)
    with pytest.raises(DataError, match=r"compression 2; only Snappy and none are known"):
        entries(seven)


def log_database(folder: Path, log: bytes) -> Path:
    """Make a database that is one write-ahead log."""
    folder.mkdir()
    edit = write_varint(1) + write_bytes(b"leveldb.BytewiseComparator") + b"\2\3\3\4\4\0"
    (folder / "MANIFEST-000002").write_bytes(format_record(edit))
    (folder / "CURRENT").write_text("MANIFEST-000002\n")
    (folder / "000003.log").write_bytes(log)
    return folder


def batch(sequence: int, *changes: tuple[bytes, bytes | None]) -> bytes:
    parts = [sequence.to_bytes(8, "little"), len(changes).to_bytes(4, "little")]
    for key, value in changes:
        if value is None:
            parts.append(b"\0" + write_bytes(key))
        else:
            parts.append(b"\1" + write_bytes(key) + write_bytes(value))
    return b"".join(parts)


@pytest.mark.parametrize("size", [1, 32_768 - 40, 32_768, 100_000])
def test_values_in_a_log_are_put_together_from_its_blocks(size: int, tmp_path: Path) -> None:
    value = bytes(number % 251 for number in range(size))
    changes = [(b"b", value), (b"a", value[::-1]), (b"c", b""), (b"d", b"old"), (b"d", None)]
    log = format_record(batch(7, *changes))
    found = entries(log_database(tmp_path / "logged", log))
    assert found == [(b"a", value[::-1]), (b"b", value), (b"c", b"")]


def test_a_log_goes_on_after_a_block_with_room_for_a_header_only(tmp_path: Path) -> None:
    # The first record ends 7 bytes before the end of the block: the next begins there, empty.
    empty = len(format_record(batch(1, (b"a", b"")))) + 2  # lengths of two bytes more
    first = format_record(batch(1, (b"a", bytes(32_768 - 7 - empty))))
    assert len(first) == 32_768 - 7
    payload = batch(2, (b"b", b"second"))
    head = masked_crc(b"\2").to_bytes(4, "little") + b"\0\0\2"
    tail = masked_crc(b"\4" + payload).to_bytes(4, "little")
    tail += len(payload).to_bytes(2, "little") + b"\4" + payload
    found = entries(log_database(tmp_path / "logged", first + head + tail))
    assert [(key, len(value)) for key, value in found] == [(b"a", 32_761 - empty), (b"b", 6)]
    assert found[1][1] == b"second"


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"short", "a write of 5 bytes"),
        (batch(1, (b"a", b"v")) + b"more", "expected a write of"),
        (batch(1, (b"a", b"v")).replace(b"\1\1a", b"\7\1a"), "a write of the unknown kind 7"),
    ],
)
def test_a_log_of_anything_else_is_refused(payload: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        LevelDbReader(log_database(tmp_path / "logged", format_record(payload)))


def test_room_that_a_log_set_aside_is_passed_over(tmp_path: Path) -> None:
    log = format_record(batch(1, (b"a", b"v"))) + bytes(500)
    assert entries(log_database(tmp_path / "logged", log)) == [(b"a", b"v")]
