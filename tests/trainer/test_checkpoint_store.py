"""Checkpoints are whole or passed over, whatever happens to the writer, the disk or the files."""

import errno
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import fs

from trainer.checkpoints import folder as folder_module
from trainer.checkpoints import open_store
from trainer.checkpoints.store import CheckpointStore
from trainer.checkpoints.tensors import TensorWriter, read_tensors, write_tensors
from trainer.errors import DataError, TrainerError, UsageError

ROOT = Path(__file__).resolve().parents[2]
LOGGER = "trainer.checkpoints.store"

# Completes checkpoints until it is killed; says which it has completed.
WRITER = """
import sys
from trainer.checkpoints import open_store
store = open_store(sys.argv[1], keep=2)
found = store.latest()
iteration = found.iteration if found else 0
store.write_run({}, resumes=True)
while True:
    iteration += 1
    pending = store.begin(iteration)
    for rank in range(3):
        with pending.writing(f"rank-{rank}.bin") as sink:
            for _ in range(20):
                sink.write(bytes([iteration % 256]) * 50_000)
    pending.commit({"iteration": iteration})
    print(iteration, flush=True)
"""


def opened(folder: Path, keep: int = 2) -> CheckpointStore:
    """Return a store that a run writes."""
    store = CheckpointStore(str(folder), keep)
    store.write_run({}, resumes=True)
    return store


def save(store: CheckpointStore, iteration: int, metric: float | None = None) -> None:
    """Complete a checkpoint of two files whose content is known by its iteration."""
    pending = store.begin(iteration)
    for name in ("model.bin", "rank-0.bin"):
        with pending.writing(name) as sink:
            sink.write(content(iteration, name))
    pending.commit({"iteration": iteration}, metric)


def content(iteration: int, name: str) -> bytes:
    return f"{name} at {iteration} ".encode() * 1000


def iterations(store: CheckpointStore) -> list[int]:
    return [found.iteration for found in store.all()]


def folder_of(store: CheckpointStore, iteration: int) -> Path:
    (found,) = Path(store.uri).glob(f"iter_{iteration}-*")
    return found


def memory_files() -> fs.FileSystem:
    return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem("memory")))


@pytest.fixture(params=["path", "relative", "uri", "subtree", "memory"])
def anywhere(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], CheckpointStore]:
    """Return what opens one and the same store, on a kind of file system."""
    monkeypatch.chdir(tmp_path)
    below, inside = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), f"made/{tmp_path}"
    makers = {
        "path": lambda: CheckpointStore(str(tmp_path / "a b" / "runs"), 2),
        "relative": lambda: CheckpointStore("made/runs/", 2),
        "uri": lambda: CheckpointStore(f"file://{tmp_path}/runs", 2),
        "subtree": lambda: CheckpointStore("runs", 2, below),
        "memory": lambda: CheckpointStore(inside, 2, memory_files()),
    }
    return makers[request.param]


def test_what_is_written_is_read_on_every_file_system(
    anywhere: Callable[[], CheckpointStore], tmp_path: Path
) -> None:
    store = anywhere()
    assert (store.latest(), store.best(), store.read_run()) == (None, None, None)
    store.write_run({"argv": ["--net", "x"]})
    source = tmp_path / "model.caffemodel"
    source.write_bytes(content(7, "model"))
    tensors = [torch.randn(5), torch.randn(5), torch.randn(5)]
    for iteration in (5, 6, 7):
        pending = store.begin(iteration)
        pending.copy_from(source)
        with pending.writing("rank-0.arrow") as sink:
            write_tensors(sink, tensors)
        pending.commit({"seed": 3, "loss": [0.5, float("inf")], "at": {"1": iteration}}, 0.25)

    again = anywhere()
    assert again.read_run() == {"argv": ["--net", "x"]}
    assert iterations(again) == [6, 7]
    found = again.latest()
    assert found is not None
    assert (found.iteration, sorted(found.names)) == (7, ["model.caffemodel", "rank-0.arrow"])
    assert found.values == {"seed": 3, "loss": [0.5, float("inf")], "at": {"1": 7}}
    with found.reading("rank-0.arrow") as stream:
        for expected, received in zip(tensors, read_tensors(stream, 3, 5), strict=True):
            assert torch.equal(expected, received)
    found.copy_to(tmp_path / "new" / "folder", ["model.caffemodel"])
    assert (tmp_path / "new" / "folder" / "model.caffemodel").read_bytes() == content(7, "model")
    with pytest.raises(DataError, match=r"expected the file rank-9.arrow; it has \['model"):
        found.copy_to(tmp_path, ["rank-9.arrow"])


def test_arrow_reads_the_tensors_of_a_file(tmp_path: Path) -> None:
    values = torch.arange(10_000_019.0).view(-1, 1)
    with (tmp_path / "x.arrow").open("wb") as file:
        write_tensors(file, [values[:3], values[3:].double(), torch.zeros(0)])
    with pa.ipc.open_stream(tmp_path / "x.arrow") as reader:
        chunks = list(reader)
    assert max(chunk.num_rows for chunk in chunks) * 4 == 16 << 20
    assert np.array_equal(pa.Table.from_batches(chunks)["values"], values.flatten())


def test_tensors_are_written_chunk_by_chunk_from_memory_of_others(tmp_path: Path) -> None:
    foreign = np.frombuffer(np.arange(6, dtype=np.float32).tobytes(), np.float32)  # read-only
    with (tmp_path / "x.arrow").open("wb") as file, TensorWriter(file) as writer:
        writer.write_array(foreign)
        writer.write(torch.ones(2))
    with (tmp_path / "x.arrow").open("rb") as file:
        one, other = read_tensors(file, 2, 4)
    assert (one.tolist(), other.tolist()) == ([0, 1, 2, 3], [4, 5, 1, 1])


@pytest.mark.parametrize(
    ("schema", "column", "message"),
    [
        (pa.field("values", pa.float64()), [1.0], "expected a column of float32 values; received"),
        (pa.field("values", pa.float32(), nullable=False), [None], "received nulls"),
        (pa.field("values", pa.float32(), nullable=False), [1.0], "2 times 3 values; received 1"),
        (pa.field("values", pa.float32(), nullable=False), [1.0] * 7, "2 times 3.*received 7"),
    ],
)
def test_a_file_of_other_values_is_refused(
    schema: pa.Field, column: list[float | None], message: str
) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([schema])) as writer:
        array = pa.array(column, schema.type)
        writer.write_batch(pa.RecordBatch.from_arrays([array], schema=pa.schema([schema])))
    with pytest.raises(DataError, match=message):
        read_tensors(pa.BufferReader(sink.getvalue()), 2, 3)


def test_a_damaged_stream_of_tensors_is_refused() -> None:
    with pytest.raises(DataError, match="expected an Arrow IPC stream"):
        read_tensors(pa.BufferReader(b"no stream at all"), 2, 3)


def test_a_killed_writer_leaves_the_last_checkpoint_it_completed(tmp_path: Path) -> None:
    pauses = random.Random(5)
    for _ in range(6):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            completed = [writer.stdout.readline()]
            time.sleep(pauses.uniform(0, 0.2))
            writer.send_signal(signal.SIGKILL)
            completed += writer.stdout
        last = int(completed[-1])
        store = CheckpointStore(str(tmp_path), keep=2)
        found = store.latest()
        assert found is not None
        assert found.iteration in (last, last + 1)
        with found.reading("rank-2.bin") as stream:
            assert stream.read() == bytes([found.iteration % 256]) * 1_000_000

    store.write_run({}, resumes=True)
    store.begin(10**6)
    unfinished = [path for path in tmp_path.glob("iter_*") if not (path / "manifest.json").exists()]
    assert [path.name.split("-")[0] for path in unfinished] == ["iter_1000000"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"rank-0.bin: expected 16000 bytes; received 15999 bytes"),
        (flip, r"rank-0.bin: expected 16000 bytes with the sha256 \w+; received 16000 bytes with"),
        (Path.unlink, r"rank-0.bin: expected 16000 bytes; received none"),
    ],
)
def test_a_damaged_file_has_the_checkpoint_before_it_taken(
    tmp_path: Path,
    damage: Callable[[Path], None],
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = opened(tmp_path)
    save(store, 1, 0.5)
    save(store, 2, 0.75)
    damage(folder_of(store, 2) / "rank-0.bin")

    with caplog.at_level(logging.WARNING, LOGGER):
        latest, best = store.latest(), store.best()
    assert latest is not None
    assert best is not None
    assert (latest.iteration, best.iteration) == (1, 1)
    assert len(caplog.messages) == 1
    assert f"{folder_of(store, 2)}/" in caplog.text
    with pytest.raises(DataError, match=message):
        store.all()[-1].verify()


def test_a_flipped_byte_is_found_by_who_reads_only_that_file(tmp_path: Path) -> None:
    store = opened(tmp_path)
    save(store, 1)
    (found,) = store.all()
    flip(folder_of(store, 1) / "rank-0.bin")
    with found.reading("model.bin") as stream:
        assert stream.read() == content(1, "model.bin")
    with (
        pytest.raises(DataError, match=r"rank-0.bin: expected .* received"),
        found.reading("rank-0.bin"),
    ):
        pytest.fail("it was given to read")


def rewrite(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    """Return what changes a manifest without its checksum."""

    def damage(path: Path) -> None:
        sealed = json.loads(path.read_text())
        change(sealed["content"])
        path.write_text(json.dumps(sealed))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"\x00garbage"), "expected JSON with a content"),
        (lambda path: path.write_bytes(b""), "received 0 bytes of something else"),
        (lambda path: path.write_text("[1]"), "something else"),
        (cut, "expected JSON with a content"),
        (rewrite(lambda content: content.update(iteration=3)), "expected content with the sha256"),
    ],
    ids=["garbage", "empty", "list", "cut", "changed"],
)
def test_a_damaged_manifest_has_the_checkpoint_before_it_taken(
    tmp_path: Path,
    damage: Callable[[Path], None],
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = opened(tmp_path)
    save(store, 1)
    save(store, 2)
    damage(folder_of(store, 2) / "manifest.json")
    with caplog.at_level(logging.WARNING, LOGGER):
        found = store.latest()
    assert found is not None
    assert found.iteration == 1
    assert message in caplog.text
    save(store, 3)
    assert iterations(store) == [1, 3]


def test_a_manifest_of_a_later_format_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(tmp_path)
    monkeypatch.setattr("trainer.checkpoints.manifest.FORMAT", 2)
    save(store, 1)
    monkeypatch.undo()
    assert store.latest() is None
    assert "expected format 1; received 2" in caplog.text


def test_what_others_keep_in_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "iter_4").mkdir()
    (tmp_path / "iter_4" / "x.caffemodel").write_text("mine too")
    store = opened(tmp_path, keep=1)
    for iteration in (1, 2, 3):
        save(store, iteration)
    names = {path.name.split("-")[0] for path in tmp_path.iterdir()}
    assert names == {"notes.txt", "iter_4", "run.json", "iter_3"}
    assert (tmp_path / "iter_4" / "x.caffemodel").exists()


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    store = opened(tmp_path, keep=2)
    metrics = {10: None, 20: 0.5, 30: 0.75, 40: float("nan"), 50: 0.25, 60: 0.75, 70: 0.5, 80: 0.1}
    kept = []
    for iteration, metric in metrics.items():
        save(store, iteration, metric)
        kept.append(iterations(store))
    assert kept[:5] == [[10], [10, 20], [20, 30], [30, 40], [30, 40, 50]]
    assert kept[5:] == [[50, 60], [60, 70], [60, 70, 80]]
    best = store.best()
    assert best is not None
    assert (best.iteration, best.manifest.metric) == (60, 0.75)


def test_what_is_completed_last_is_the_latest_even_if_the_run_went_back(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for iteration in (10, 20, 10):
        save(store, iteration)
    found = store.latest()
    assert found is not None
    assert found.iteration == 10
    assert iterations(store) == [20, 10]


def test_a_repeated_file_takes_the_place_of_the_former(tmp_path: Path) -> None:
    store = opened(tmp_path)
    pending = store.begin(1)
    for text in (b"first", b"second", b"third"):
        with pending.writing("rank-0.bin") as sink:
            sink.write(text)
    pending.commit({})
    (found,) = store.all()
    with found.reading("rank-0.bin") as stream:
        assert stream.read() == b"third"
    assert len(list(folder_of(store, 1).glob("rank-0*"))) == 1


def test_a_repeated_file_counts_if_the_former_is_late(tmp_path: Path) -> None:
    store = opened(tmp_path)
    pending = store.begin(1)
    with pending.writing("rank-0.bin") as former:
        former.write(b"former")
        with pending.writing("rank-0.bin") as repeated:
            repeated.write(b"repeated")
        former.write(b", and on")
    pending.commit({})
    (found,) = store.all()
    with found.reading("rank-0.bin") as stream:
        assert stream.read() == b"repeated"
    assert len(list(folder_of(store, 1).glob("rank-0*"))) == 1


def test_a_file_whose_writing_failed_does_not_count(tmp_path: Path) -> None:
    store = opened(tmp_path)
    pending = store.begin(1)
    with (
        pytest.raises(ZeroDivisionError),
        pending.writing("rank-0.arrow") as sink,
        TensorWriter(sink) as writer,
    ):
        writer.write(torch.ones(3))
        raise ZeroDivisionError
    pending.commit({})
    assert not store.all()[0].names
    assert [path.name for path in folder_of(store, 1).iterdir()] == ["manifest.json"]


def test_a_file_that_comes_after_the_commit_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    pending = store.begin(1)
    message = r"late\.bin comes too late"
    with pytest.raises(TrainerError, match=message), pending.writing("late.bin") as sink:
        sink.write(b"x")
        pending.commit({})
    with pytest.raises(TrainerError, match="comes too late"), pending.writing("later.bin"):
        pytest.fail("it could be written")
    with pytest.raises(TrainerError, match="comes too late"):
        pending.commit({})
    pending.discard()
    assert iterations(store) == [1]
    assert [path.name for path in folder_of(store, 1).iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a/b", "/a", "manifest.json"])
def test_only_plain_names_are_written(tmp_path: Path, name: str) -> None:
    pending = opened(tmp_path).begin(1)
    with pytest.raises(TrainerError, match="expected a plain file name"), pending.writing(name):
        pytest.fail("it could be written")


def test_what_is_given_up_is_gone(tmp_path: Path) -> None:
    store = opened(tmp_path)
    pending = store.begin(1)
    with pending.writing("rank-0.bin") as sink:
        sink.write(b"x")
    pending.discard()
    pending.discard()
    assert not list(tmp_path.glob("iter_*"))
    with pytest.raises(ZeroDivisionError), store.begin(2):
        raise ZeroDivisionError
    assert not list(tmp_path.glob("iter_*"))
    with store.begin(3) as pending:
        pending.commit({})
    assert iterations(store) == [3]


def test_threads_write_files_of_one_checkpoint_at_once(tmp_path: Path) -> None:
    store = opened(tmp_path)
    pending = store.begin(1)
    meeting = threading.Barrier(8, timeout=60)

    def deposit(rank: int) -> None:
        for _ in range(2):
            with pending.writing(f"rank-{rank}.bin") as sink:
                meeting.wait()
                for part in range(50):
                    sink.write(bytes([rank, part]) * 1000)

    threads = [threading.Thread(target=deposit, args=(rank,)) for rank in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pending.commit({})
    found = store.latest()
    assert found is not None
    assert sorted(found.names) == [f"rank-{rank}.bin" for rank in range(8)]
    with found.reading("rank-5.bin") as stream:
        assert stream.read() == b"".join(bytes([5, part]) * 1000 for part in range(50))


def test_a_second_run_stops_the_first_and_leaves_its_checkpoints(tmp_path: Path) -> None:
    first = opened(tmp_path)
    save(first, 1)
    late = first.begin(2)
    with late.writing("rank-0.bin") as sink:
        sink.write(b"x")
    with pytest.raises(UsageError, match=rf"at iteration 1: go on with `train --resume {tmp_path}"):
        CheckpointStore(str(tmp_path), 2).write_run({})
    second = opened(tmp_path)
    message = rf"by this run only, {first.run}; run.json names {second.run}, process {os.getpid()}"
    with pytest.raises(TrainerError, match=message):
        late.commit({})
    for act in (lambda: first.begin(3), first.finish):
        with pytest.raises(TrainerError, match=message):
            act()
    save(second, 3)
    assert iterations(second) == [1, 3]


def test_a_new_run_takes_the_place_of_a_finished_one(tmp_path: Path) -> None:
    finished = CheckpointStore(str(tmp_path), 2)
    finished.write_run({"seed": 3})
    save(finished, 1)
    finished.finish()
    again = CheckpointStore(str(tmp_path), 2)
    assert again.read_run() == {"seed": 3}
    assert iterations(again) == [1]
    again.write_run({"seed": 4})
    assert again.read_run() == {"seed": 4}
    assert iterations(again) == []


def test_what_the_writer_itself_has_begun_stays(tmp_path: Path) -> None:
    store = opened(tmp_path)
    early = store.begin(1)
    save(store, 2)
    early.commit({})
    assert iterations(store) == [2, 1]


def test_a_run_that_has_not_taken_the_store_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"run\.json names none"):
        CheckpointStore(str(tmp_path), 2).begin(1)


def test_a_damaged_run_file_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    flip(tmp_path / "run.json")
    with pytest.raises(DataError, match=r"run\.json: expected"):
        store.read_run()


def test_a_file_removed_by_others_fails_the_commit(tmp_path: Path) -> None:
    store = opened(tmp_path)
    save(store, 1)
    pending = store.begin(2)
    with pending.writing("rank-0.bin") as sink:
        sink.write(b"abc")
    (folder_of(store, 2) / "rank-0.bin").unlink()
    with pytest.raises(TrainerError, match="expected the 3 bytes that were written; received none"):
        pending.commit({})
    assert iterations(store) == [1]


def test_a_full_disk_fails_the_file_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    store = opened(tmp_path)
    save(store, 1)
    pending = store.begin(2)
    (folder_of(store, 2) / "rank-0.arrow").symlink_to("/dev/full")
    message = r"rank-0.arrow: writing failed .*: no space is left"
    with pytest.raises(TrainerError, match=message), pending.writing("rank-0.arrow") as sink:
        write_tensors(sink, [torch.zeros(100_000)])
    pending.discard()
    found = store.latest()
    assert found is not None
    assert found.iteration == 1


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[None]:
    """Mount a small file system, where this machine allows it."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to mount: {error}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_small_disk_keeps_what_was_completed_when_it_is_full(tmp_path: Path) -> None:
    with tmpfs(tmp_path, "size=1m"):
        store = opened(tmp_path, keep=10)
        with pytest.raises(TrainerError, match="no space is left"):
            for iteration in range(1, 10):
                pending = store.begin(iteration)
                with pending.writing("rank-0.bin") as sink:
                    sink.write(b"x" * 300_000)
                pending.commit({})
        pending.discard()
        assert iterations(store) == [1, 2, 3]
        (tmp_path / "rest").write_bytes(b"x" * (1 << 16))
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "all").write_bytes(b"x" * (1 << 20))
        with pytest.raises(TrainerError, match=r"\.probe\.\w+: writing failed .* no space is left"):
            CheckpointStore(str(tmp_path), keep=10)


def test_a_read_only_file_system_is_refused_at_once(tmp_path: Path) -> None:
    with tmpfs(tmp_path, "ro"), pytest.raises(TrainerError, match="the file system is read-only"):
        CheckpointStore(str(tmp_path), 2)


def test_a_folder_without_permission_is_refused_at_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        with pytest.raises(TrainerError, match="there is no permission to write"):
            CheckpointStore(str(tmp_path / "runs"), 2)
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("ftp://host/runs", UsageError, "expected a local path, file:///…, hdfs://…"),
        ("file://host/runs", UsageError, "expected a local path"),
        ("/dev/null/runs", TrainerError, "making the folder failed .*: check the path"),
    ],
)
def test_a_wrong_place_is_refused_at_once(
    uri: str, error: type[TrainerError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        open_store(uri, 2)
    assert str(caught.value).startswith(f"{uri}: ")


def test_credentials_are_not_shown() -> None:
    with pytest.raises(UsageError) as caught:
        open_store("ftp://user:secret@host/runs?key=secret", 2)
    assert str(caught.value).startswith("ftp://host/runs: ")


class Refusing(fs.FSSpecHandler):
    """A file system whose server refuses, as object stores do without credentials."""

    def create_dir(self, path: str, recursive: bool) -> None:
        raise OSError("ACCESS_DENIED")


def test_missing_credentials_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = fs.PyFileSystem(Refusing(fsspec.filesystem("memory"))), "bucket/runs"
    monkeypatch.setattr(folder_module.Folder, "_open", lambda *_: opened)
    message = r"s3://bucket/runs: making the folder failed \(ACCESS_DENIED\): the bucket must exist"
    with pytest.raises(TrainerError, match=message):
        open_store("s3://bucket/runs?region=x", 2)


class Silent(fs.FSSpecHandler):
    """A file system that does not answer."""

    released = threading.Event()

    def create_dir(self, path: str, recursive: bool) -> None:
        self.released.wait(60)
        raise OSError(errno.EIO, "released")


def test_a_file_system_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folder_module, "_PROBE_S", 0.1)
    files = fs.PyFileSystem(Silent(fsspec.filesystem("memory")))
    with pytest.raises(TrainerError, match=r"did not answer in 0.1 s; check its address"):
        CheckpointStore("runs", 2, files)
    Silent.released.set()


def test_a_missing_pyarrow_is_named() -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from trainer.checkpoints import open_store\n"
        "from trainer.errors import TrainerError\n"
        "try: open_store('x', 1)\n"
        "except TrainerError as error: print(error)"
    )
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "checkpoints need pyarrow" in shown
    assert "pip install 'torrefy[spark]'" in shown
