"""HDF5Data: rows over several files, shuffling, places, workers, refusals."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from data_layers import batches, layer, opened
from numpy.typing import NDArray

from prototxt_parser.data_spec import DataSpec
from trainer.data.feed import open_feed
from trainer.errors import DataError, UsageError

SIZES = (3, 5, 2)
COUNT = sum(SIZES)


def write(file: Path, **datasets: NDArray[Any]) -> None:
    with h5py.File(file, "w") as stream:
        for name, values in datasets.items():
            stream[name] = values


def rows(first: int, count: int) -> dict[str, NDArray[Any]]:
    """Return a label, its number, and a feature for each row, whose values tell rows apart."""
    labels = np.arange(first, first + count)
    data = labels[:, None, None] + np.arange(6, dtype=np.float64).reshape(2, 3) / 8
    return {"label": labels, "data": data}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of 3, 5 and 2 rows, and a list of them."""
    for number, size in enumerate(SIZES):
        write(tmp_path / f"{number}.h5", **rows(sum(SIZES[:number]), size))
    names = [str(tmp_path / f"{number}.h5") for number in range(len(SIZES))]
    (tmp_path / "list.txt").write_text("\r\n".join(names))
    return tmp_path


def rows_layer(
    folder: Path, settings: str = "", *, batch_size: int = 4, more: str = "", **others: Any
) -> DataSpec:
    text = f'source: "{folder}/list.txt" batch_size: {batch_size} {settings}'
    return layer("HDF5Data", f"hdf5_data_param {{ {text} }} {more}", **others)


@pytest.mark.parametrize("batch_size", [1, 4, 10, 23])
def test_rows_go_on_in_the_next_file_and_wrap(folder: Path, batch_size: int) -> None:
    with opened(rows_layer(folder, batch_size=batch_size)) as feed:
        assert feed.shapes == {"data": (batch_size, 2, 3), "label": (batch_size,)}
        read = [feed.next() for _ in range(30)]
    labels = torch.cat([batch["label"] for batch in read])
    assert labels.tolist() == [row % COUNT for row in range(30 * batch_size)]
    data = torch.cat([batch["data"] for batch in read])
    assert data.dtype == labels.dtype == torch.float32
    np.testing.assert_array_equal(data, rows(0, COUNT)["data"][labels.int()])


def test_one_file_may_be_listed_twice(folder: Path) -> None:
    (folder / "list.txt").write_text(f"{folder}/0.h5 {folder}/0.h5\n\n")
    with opened(rows_layer(folder, batch_size=7)) as feed:
        assert batches(feed, "label", 1) == [[0, 1, 2, 0, 1, 2, 0]]


def test_values_that_are_not_finite_pass(folder: Path) -> None:
    strange = np.array([np.nan, np.inf, -np.inf, 1e300, 0], np.float64)
    write(folder / "0.h5", x=strange[:, None])
    (folder / "list.txt").write_text(f"{folder}/0.h5")
    with np.errstate(over="ignore"):
        expected = strange.astype(np.float32)
    with opened(rows_layer(folder, batch_size=5, tops="x")) as feed:
        np.testing.assert_array_equal(feed.next()["x"][:, 0], expected)


def test_every_epoch_has_its_own_order_of_files_and_rows(folder: Path) -> None:
    with opened(rows_layer(folder, "shuffle: true", batch_size=COUNT)) as feed:
        epochs = batches(feed, "label", 40)
    file_orders, row_orders = set(), set()
    for epoch in epochs:
        assert sorted(epoch) == list(range(COUNT))
        files = [int(np.searchsorted(np.cumsum(SIZES), row, "right")) for row in epoch]
        runs = [file for file, before in zip(files, [None, *files], strict=False) if file != before]
        assert sorted(runs) == [0, 1, 2], "the rows of a file stay together"
        file_orders.add(tuple(runs))
        row_orders.add(tuple(row for row in epoch if 3 <= row < 8))
    assert len(file_orders) == 6
    assert len(row_orders) > 20


@pytest.mark.parametrize("settings", ["", "shuffle: true"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_feed_goes_on_exactly_from_a_saved_position(
    folder: Path, settings: str, rank: int
) -> None:
    spec, worker = rows_layer(folder, settings, batch_size=3), {"rank": rank, "world_size": 2}
    with opened(spec, **worker) as feed:
        batches(feed, "label", 7)
        state = json.loads(json.dumps(feed.state_dict()))
        wanted = batches(feed, "data", 9)
        feed.load_state_dict(state)
        assert batches(feed, "data", 9) == wanted
    with opened(spec, **worker) as other:
        other.skip(7)
        assert batches(other, "data", 9) == wanted


@pytest.mark.parametrize("settings", ["", "shuffle: true"])
def test_workers_train_on_their_own_parts_and_test_on_all(folder: Path, settings: str) -> None:
    for rank, part in enumerate(([0, 1, 2], [3, 4, 5], [6, 7, 8, 9])):
        spec = rows_layer(folder, settings, batch_size=len(part))
        with opened(spec, rank=rank, world_size=3) as feed:
            assert [sorted(labels) for labels in batches(feed, "label", 2)] == [part, part]
        spec = rows_layer(folder, settings, batch_size=COUNT, phase="TEST")
        with opened(spec, rank=rank, world_size=3) as feed:
            assert sorted(batches(feed, "label", 1)[0]) == list(range(COUNT))


def test_files_kept_elsewhere_are_found(folder: Path) -> None:
    (folder / "list.txt").write_text("examples/0.h5\nexamples/2.h5\n")
    spec = layer("HDF5Data", 'hdf5_data_param { source: "examples/list.txt" batch_size: 4 }')
    with opened(spec, data_dir=folder) as feed:
        assert batches(feed, "label", 1) == [[0, 1, 2, 8]]


def test_a_file_that_changed_is_refused(folder: Path) -> None:
    with opened(rows_layer(folder, batch_size=3, more="data_param { prefetch: 1 }")) as feed:
        write(folder / "0.h5", **rows(0, 2))
        with pytest.raises(DataError, match=r'0.h5: dataset "data" has changed'):
            feed.next()


def damage(folder: Path, kind: str) -> None:
    """Make the second of the three files wrong."""
    file = folder / "1.h5"
    whole = file.read_bytes()
    file.unlink()
    if kind in ("text", "cut"):
        file.write_bytes(b"no HDF5" if kind == "text" else whole[:700])
    label, data = rows(3, 5).values()
    datasets = {
        "no such dataset": {"label": label, "other": data},
        "group": {"label": label, "data/inside": data},
        "row counts": {"label": label[:4], "data": data},
        "no rows": {"label": label[:0], "data": data[:0]},
        "scalar": {"label": np.float32(3), "data": data},
        "text rows": {"label": label.astype("S1"), "data": data},
        "truths": {"label": label > 4, "data": data},
        "row shape": {"label": label, "data": data[:, :1]},
    }
    if kind in datasets:
        write(file, **datasets[kind])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("gone", r"1.h5 does not exist"),
        ("text", r"Failed opening HDF5 file: .*1.h5"),
        ("cut", r"Failed opening HDF5 file: .*1.h5"),
        (
            "no such dataset",
            r"1.h5: Failed to find HDF5 dataset data: .* the file has label, other",
        ),
        ("group", r"1.h5: Failed to find HDF5 dataset data: .* the file has label$"),
        ("row counts", r"1.h5: expected as many rows .* received {'data': 5, 'label': 4}"),
        ("no rows", r"1.h5: expected rows in its datasets; received none"),
        ("scalar", r'1.h5: dataset "label": Input must have at least 1 axis'),
        ("text rows", r'1.h5: dataset "label": Unsupported datatype class: .* received \|S1'),
        ("truths", r'1.h5: dataset "label": Unsupported datatype class: .* received bool'),
        (
            "row shape",
            r'rows of dataset "data" .* expected \(2, 3\) as in .*0.h5, received \(1, 3\)',
        ),
    ],
)
def test_files_that_cannot_be_used_are_named(folder: Path, kind: str, message: str) -> None:
    damage(folder, kind)
    with pytest.raises(
        DataError, match=rf'^net.prototxt:3:1: layer "in" .*list.txt, file 2 of 3: .*{message}'
    ):
        open_feed([rows_layer(folder)], seed=5)


def test_values_that_cannot_be_read_are_reported(folder: Path) -> None:
    file = folder / "0.h5"
    with h5py.File(file, "w") as stream:
        stream.create_dataset("x", data=np.arange(4000.0), chunks=(500,), compression="gzip")
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    file.write_bytes(content)
    (folder / "list.txt").write_text(str(file))
    with (
        opened(rows_layer(folder, tops="x")) as feed,
        pytest.raises(
            DataError, match=r"Failed opening HDF5 file: .*0.h5: .*damaged, or compressed"
        ),
    ):
        feed.next()


@pytest.mark.parametrize("content", ["", " \r\n \n"])
def test_an_empty_list_is_refused(folder: Path, content: str) -> None:
    (folder / "list.txt").write_text(content)
    with pytest.raises(DataError, match=r"at least 1 HDF5 filename listed in .*list.txt; received"):
        open_feed([rows_layer(folder)], seed=5)


def test_a_list_that_is_a_folder_is_refused(folder: Path) -> None:
    (folder / "list.txt").unlink()
    (folder / "list.txt").mkdir()
    with pytest.raises(DataError, match=r"Failed to open source file: .*list.txt"):
        open_feed([rows_layer(folder)], seed=5)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"more": "transform_param { }"}, "HDF5Data does not transform data"),
        ({"batch_size": 0}, "hdf5_data_param.batch_size must be > 0; received 0"),
        ({"tops": ""}, r"at least 1 top blob\(s\) as output; received 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    folder: Path, others: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        open_feed([rows_layer(folder, **others)], seed=5)
