"""The database writer: what it writes, and what is left when it cannot."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
from image_databases import images, raw_datum

from trainer.data.database import write_database
from trainer.data.entries import Entry, datum_entries
from trainer.data.lmdb_reader import LmdbReader
from trainer.errors import DataError, UsageError


def content(path: Path) -> dict[bytes, bytes]:
    with (
        lmdb.open(str(path), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        return dict(transaction.cursor())


def test_entries_are_written_in_full(tmp_path: Path) -> None:
    entries = [(b"%05d" % number, b"v%d" % number) for number in range(2345)]
    target = tmp_path / "new" / "some_lmdb"
    assert write_database(target, iter(entries)) == 2345
    assert content(target) == dict(entries)
    assert [file.name for file in target.iterdir()] == ["data.mdb"]
    assert [file.name for file in target.parent.iterdir()] == ["some_lmdb"]
    LmdbReader(target).close()


def test_the_map_grows_as_needed(tmp_path: Path) -> None:
    entries = ((b"%05d" % number, bytes([number]) * 2**20) for number in range(70))
    assert write_database(tmp_path / "large_lmdb", entries) == 70
    assert content(tmp_path / "large_lmdb")[b"00069"] == bytes([69]) * 2**20


def test_datums_are_those_of_caffes_converters() -> None:
    pictures = images(2)
    records = ((label, picture.tobytes()) for label, picture in zip((0, 7), pictures, strict=True))
    assert list(datum_entries(records, (3, 5, 7), 5)) == [
        (b"00000", raw_datum(pictures[0], 0)),
        (b"00001", raw_datum(pictures[1], 7)),
    ]


def test_an_existing_target_is_kept(tmp_path: Path) -> None:
    write_database(tmp_path / "a_lmdb", [(b"k", b"v")])
    with pytest.raises(UsageError, match=r"a_lmdb: exists already; remove it or choose another"):
        write_database(tmp_path / "a_lmdb", [(b"k", b"w")])
    assert content(tmp_path / "a_lmdb") == {b"k": b"v"}


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def entries() -> Iterator[Entry]:
        for number in range(1500):
            yield b"%05d" % number, b"v"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_database(tmp_path / "a_lmdb", entries())
    assert not list(tmp_path.iterdir())


KILL_ITSELF = """
import os, signal, sys
from pathlib import Path
from trainer.data.database import write_database
def entries():
    for number in range(2500):
        yield b"%05d" % number, b"old"
    os.kill(os.getpid(), signal.SIGKILL)
    yield b"99999", b"old"
write_database(Path(sys.argv[1]), entries())
"""


def test_what_a_killed_writer_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "a_lmdb"
    killed = subprocess.run([sys.executable, "-c", KILL_ITSELF, target], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert [file.name for file in tmp_path.iterdir()] == [".a_lmdb.partial"]
    write_database(target, [(b"k", b"new")])
    assert content(target) == {b"k": b"new"}
    assert [file.name for file in tmp_path.iterdir()] == ["a_lmdb"]


def test_two_writers_of_one_target_do_not_mix(tmp_path: Path) -> None:
    partial = tmp_path / ".a_lmdb.partial"
    partial.mkdir()
    (partial / "data.mdb").write_bytes(b"another process writes here")
    handle = os.open(partial, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match=r"another process is writing it"):
        write_database(tmp_path / "a_lmdb", [(b"k", b"v")])
    assert (partial / "data.mdb").read_bytes() == b"another process writes here"
    os.close(handle)


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/a_lmdb: writing failed .*choose another folder"):
        write_database(tmp_path / "file" / "a_lmdb", [(b"k", b"v")])


WRITE_4_MB = """
import sys
from pathlib import Path
from trainer.data.database import write_database
from trainer.errors import DataError
folder = Path(sys.argv[1])
try:
    write_database(folder / "a_lmdb", ((b"%05d" % n, bytes(4000)) for n in range(1000)))
except DataError as error:
    print(error)
print(sorted(path.name for path in folder.iterdir()))
"""


FORBID_LARGE_FILES = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
"""


def test_a_refused_write_leaves_nothing(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FORBID_LARGE_FILES + WRITE_4_MB, tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
    )
    message, left = result.stdout.splitlines()
    assert "a_lmdb: writing failed" in message
    assert "is the disk full? It has" in message
    assert left == "[]"


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}"
    unshare = shutil.which("unshare")
    if (
        not unshare
        or subprocess.run(
            [unshare, "-rm", "sh", "-c", mount], capture_output=True, timeout=120
        ).returncode
    ):
        pytest.skip("needs the right to mount a small file system in a namespace of its own")
    script = f'{mount} && exec "$0" -c "$1" {tmp_path}'
    result = subprocess.run(
        [unshare, "-rm", "sh", "-c", script, sys.executable, WRITE_4_MB],
        capture_output=True,
        text=True,
        timeout=120,
    )
    message, left = result.stdout.splitlines()
    assert "writing failed" in message
    assert "is the disk full? It has 1 MB free without this file" in message
    assert "nothing is left of it: free space there or choose another folder" in message
    assert left == "[]"
