"""The database reader: order, parts, sharing, and databases that are none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from database_readers import read
from image_databases import make_lmdb

from golden_cases import GOLDEN
from trainer.data.lmdb_reader import LmdbReader
from trainer.errors import DataError

SOUND = GOLDEN / "formats/db/raw_lmdb"


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    return make_lmdb(tmp_path / "seven_lmdb", [b"v%d" % number for number in range(7)])


def test_seek_refuses_a_key_that_is_gone(seven: Path) -> None:
    reader = LmdbReader(seven)
    with pytest.raises(DataError, match=r"entry 2 of 7 is not there.*changed"):
        reader.seek(2, b"002x")
    reader.close()


def test_readers_of_one_path_are_independent(seven: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(seven)
    first, second, third = LmdbReader(seven), LmdbReader(link), LmdbReader(seven)
    read(first, 3)
    read(second, 5)
    second.close()
    second.close()
    assert first.value == b"v3"
    first.close()
    assert third.value == b"v0"
    third.close()
    again = LmdbReader(link)
    assert again.value == b"v0"
    again.close()


def test_reading_writes_nothing(seven: Path) -> None:
    before = (seven / "data.mdb").stat().st_mtime_ns
    LmdbReader(seven).close()
    assert [file.name for file in seven.iterdir()] == ["data.mdb"]
    assert (seven / "data.mdb").stat().st_mtime_ns == before


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: expected the directory of an LMDB"):
        LmdbReader(tmp_path / "gone")
    with pytest.raises(DataError, match=r"holds no data.mdb"):
        LmdbReader(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"x" * 9999)
    with pytest.raises(DataError, match=r"9999 bytes that are no LMDB.*convert the images again"):
        LmdbReader(tmp_path)


def test_an_empty_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the database is empty"):
        LmdbReader(make_lmdb(tmp_path / "empty", []))


def test_fewer_entries_than_workers_are_refused(seven: Path) -> None:
    with pytest.raises(DataError, match=r"each of 8 workers; it holds 7"):
        LmdbReader(seven, 0, 8)


READ_ALL = """
import sys
from pathlib import Path
from trainer.data.lmdb_reader import LmdbReader
from trainer.errors import DataError
for path in sys.argv[1:]:
    try:
        reader = LmdbReader(Path(path))
        for _ in range(reader.count):
            reader.value
            reader.advance()
        print("read")
    except DataError as error:
        print(error)
"""


def test_a_file_that_was_cut_off_is_refused_at_any_length(tmp_path: Path) -> None:
    # LMDB reads a mapped file: a missing page would end the process with a bus error.
    size = (SOUND / "data.mdb").stat().st_size
    lengths = [0, 16, 151, 4096, 4247, 4248, 8192, 8193, size // 2, size - 4096, size - 1, size]
    folders = []
    for length in lengths:
        folders.append(tmp_path / f"{length}_lmdb")
        folders[-1].mkdir()
        shutil.copyfile(SOUND / "data.mdb", folders[-1] / "data.mdb")
        os.truncate(folders[-1] / "data.mdb", length)
    result = subprocess.run(
        [sys.executable, "-c", READ_ALL, *folders], capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stderr) == (0, "")
    *refusals, sound = result.stdout.splitlines()
    assert sound == "read"
    for length, message in zip(lengths[:-1], refusals, strict=True):
        assert f"{length}_lmdb" in message
        assert "cut off" in message or "no LMDB" in message


FORK = """
import os, sys
from pathlib import Path
from trainer.data.lmdb_reader import LmdbReader
path = Path(sys.argv[1])
reader = LmdbReader(path)
pid = os.fork()
if not pid:
    again = LmdbReader(path)
    again.advance()
    os._exit(again.value != b"v1" or reader.value != b"v0")
status = os.waitpid(pid, 0)[1]
reader.advance()
sys.exit(status or reader.value != b"v1")
"""


def test_readers_work_on_both_sides_of_a_fork(seven: Path) -> None:
    result = subprocess.run([sys.executable, "-c", FORK, seven], timeout=120)
    assert result.returncode == 0
