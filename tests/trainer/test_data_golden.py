"""Data layers, random transforms and mean files, as recorded from real Caffe."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from golden_cases import GOLDEN, golden_cases
from prototxt_parser import build_net, read_net
from prototxt_parser.build import data_specs
from prototxt_parser.state import net_state
from trainer.data.datum import decode_datum, parse_datum
from trainer.data.feed import open_feed
from trainer.data.lmdb_reader import LmdbReader
from trainer.data.mean_file import compute_mean, read_mean, write_mean

Outputs = list[Mapping[str, NDArray[np.float32]]]

DATABASES = GOLDEN / "formats" / "db"
DATA_LAYERS = [f"formats/{kind}" for kind in ("data", "image_data", "hdf5_data", "window_data")]


def read_outputs(case: Path, seed: int = 1) -> tuple[Outputs, Outputs]:
    """Return what Caffe put out and what we do, forward by forward."""
    info = json.loads((case / "case.json").read_text())
    specs = data_specs(read_net("net.prototxt"), net_state(info["phase"]))
    feed = open_feed(specs, seed=seed)
    ours = [
        {name: blob.numpy() for name, blob in feed.next().items()} for _ in range(info["forwards"])
    ]
    feed.close()
    with np.load(case / "case.npz") as arrays:
        recorded = [
            {top: arrays[f"out/{forward}/{top}"] for top in specs[0].tops}
            for forward in range(info["forwards"])
        ]
    return recorded, ours


@pytest.mark.parametrize("case", golden_cases(*DATA_LAYERS))
def test_data_layer_puts_out_what_caffe_does(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case)
    tolerance = json.loads((case / "case.json").read_text())["abs_tolerance"]
    recorded, ours = read_outputs(case)
    for wanted, got in zip(recorded, ours, strict=True):
        assert wanted.keys() == got.keys()
        for top, blob in wanted.items():
            assert got[top].dtype == np.float32
            assert got[top].shape == blob.shape
            np.testing.assert_allclose(got[top], blob, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", golden_cases("layers/HDF5Data"))
def test_hdf5_data_layer_of_a_net_equals_caffe(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case)
    info = json.loads((case / "case.json").read_text())
    definition = read_net("net.prototxt")
    feed = open_feed(data_specs(definition, net_state(info["phase"])), seed=1)
    net = build_net(definition, info["phase"], input_shapes=feed.shapes)
    with np.load("case.npz") as arrays:
        for step in range(info["steps"]):
            net(feed.next())
            for top in info["tops"]:
                key = f"step{step}/top/{top}"
                tolerance = info["tolerance_overrides"].get(key, info["tolerance"])
                assert net.blobs[top].shape == arrays[key].shape
                np.testing.assert_allclose(net.blobs[top], arrays[key], **tolerance)
    feed.close()


def test_reading_leaves_no_lock_file() -> None:
    assert not list(DATABASES.glob("*/lock.mdb"))


def stored_images() -> NDArray[np.float32]:
    reader = LmdbReader(DATABASES / "raw_lmdb")
    pictures = []
    for _ in range(reader.count):
        pictures.append(decode_datum(parse_datum(reader.value)).astype(np.float32))
        reader.advance()
    reader.close()
    return np.stack(pictures)


def windows_of(outputs: Outputs, pictures: NDArray[np.float32], side: int) -> list[tuple[int, ...]]:
    """Find every output among the windows of its image: top, left, whether it is mirrored."""
    found = []
    for blobs in outputs:
        for picture, out in zip(pictures, blobs["pic"], strict=True):
            matches = [
                (top, left, flip)
                for top in range(picture.shape[1] - side + 1)
                for left in range(picture.shape[2] - side + 1)
                for flip in (0, 1)
                if np.allclose(
                    picture[:, top : top + side, left : left + side][..., :: 1 - 2 * flip],
                    out,
                    rtol=0,
                    atol=1e-4,
                )
            ]
            assert matches, "the output is no window of its image"
            found.append(matches[0])
    return found


@pytest.mark.golden("formats/random/train_crop_mirror")
def test_training_crops_and_mirrors_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    case = GOLDEN / "formats/random/train_crop_mirror"
    monkeypatch.chdir(case)
    recorded, ours = read_outputs(case)
    pictures = stored_images() - 50
    places, ours_places = (windows_of(outputs, pictures, 12) for outputs in (recorded, ours))
    tops, lefts, flips = zip(*ours_places, strict=True)
    assert set(tops) == set(range(20 - 12 + 1))
    assert set(lefts) == set(range(24 - 12 + 1))
    assert 0.3 < np.mean(flips) < 0.7
    assert 0.3 < np.mean([flip for _, _, flip in places]) < 0.7


@pytest.mark.golden("formats/random/test_mirror")
def test_test_phase_mirrors_the_centre_window(monkeypatch: pytest.MonkeyPatch) -> None:
    case = GOLDEN / "formats/random/test_mirror"
    monkeypatch.chdir(case)
    recorded, ours = read_outputs(case)
    pictures = stored_images() - read_mean(DATABASES / "mean.binaryproto")
    for outputs in (recorded, ours):
        places = windows_of(outputs, pictures, 15)
        assert {place[:2] for place in places} == {((20 - 15) // 2, (24 - 15) // 2)}
        assert 0.3 < np.mean([place[2] for place in places]) < 0.7


@pytest.mark.golden("formats/mean")
@pytest.mark.parametrize(("name", "database"), [("mean", "raw"), ("greymean", "greyraw")])
def test_mean_file_is_caffes_to_the_byte(name: str, database: str, tmp_path: Path) -> None:
    mean = compute_mean(DATABASES / f"{database}_lmdb")
    recorded = GOLDEN / "formats/mean" / f"{name}.binaryproto"
    write_mean(tmp_path / "mean.binaryproto", mean)
    assert (tmp_path / "mean.binaryproto").read_bytes() == recorded.read_bytes()
    with np.load(recorded.with_suffix(".npz")) as arrays:
        np.testing.assert_array_equal(read_mean(recorded), arrays["mean"][0])


@pytest.mark.golden("formats/mean")
def test_channel_means_are_those_that_caffe_logs() -> None:
    info = json.loads((GOLDEN / "formats/mean/case.json").read_text())
    mean = compute_mean(DATABASES / "raw_lmdb")
    logged = [float(value) for _, value in info["logged_channel_means"]]
    np.testing.assert_allclose(mean.mean(axis=(1, 2)), logged, rtol=1e-5)
