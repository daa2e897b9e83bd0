"""Model files that real Caffe wrote: read in every format, and written as Caffe writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from golden_cases import GOLDEN, golden_cases
from prototxt_parser import Net, PrototxtError, build_net, load_weights, read_net, save_weights
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.weights_hdf5 import save_hdf5

LEGACY = "formats/legacy/v1_v0_models"
LEGACY_INFO = json.loads((GOLDEN / LEGACY / "case.json").read_text())
CASES = golden_cases("formats/caffemodel")
HDF5_CASES = [c for c in CASES if list(c.values[0].glob("*.h5"))]


def recorded(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return json.loads((folder / "case.json").read_text()), dict(np.load(folder / "case.npz"))


def group(arrays: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {key[len(kind) + 1 :]: v for key, v in arrays.items() if key.startswith(f"{kind}/")}


def fresh_net(folder: Path, name: str = "net.prototxt") -> Net:
    return build_net(read_net(folder / name), "TEST", seed=4)


def check_outputs(net: Net, arrays: dict[str, np.ndarray], tolerance: float) -> None:
    net({name: torch.from_numpy(value) for name, value in group(arrays, "in").items()})
    for name, want in group(arrays, "out").items():
        got = net.blobs[name].detach().numpy()
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=name)


def loaded(folder: Path, name: str) -> Net:
    net = fresh_net(folder)
    load_weights(net, folder / name)
    return net


def tree(path: Path) -> dict[str, np.ndarray | None]:
    """Every group and dataset of an HDF5 file; None stands for a group."""
    found: dict[str, np.ndarray | None] = {}

    def visit(name: str, item: h5py.HLObject) -> None:
        found[name] = item[()] if isinstance(item, h5py.Dataset) else None

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


@pytest.mark.parametrize("folder", CASES)
def test_every_file_gives_the_recorded_parameters_and_outputs(folder: Path) -> None:
    info, arrays = recorded(folder)
    for name in info["files"]:
        net = loaded(folder, name)
        blobs = {
            f"{n}/{i}": b for n, layer in net.layers.items() for i, b in enumerate(layer.blobs)
        }
        want = group(arrays, "param")
        assert blobs.keys() == want.keys()
        for key, blob in blobs.items():
            np.testing.assert_array_equal(
                blob.detach().numpy(), want[key], err_msg=key, strict=True
            )
        check_outputs(net, arrays, info["tolerance"])


@pytest.mark.parametrize("folder", CASES)
def test_a_saved_model_is_the_file_that_caffe_saves(folder: Path, tmp_path: Path) -> None:
    name = next(name for name in recorded(folder)[0]["files"] if name.endswith(".caffemodel"))
    save_weights(loaded(folder, name), tmp_path / name)
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("folder", HDF5_CASES)
def test_a_saved_hdf5_model_is_the_tree_that_caffe_saves(folder: Path, tmp_path: Path) -> None:
    name = next(name for name in recorded(folder)[0]["files"] if name.endswith(".h5"))
    save_hdf5(loaded(folder, name), tmp_path / name)
    ours, theirs = tree(tmp_path / name), tree(folder / name)
    assert ours.keys() == theirs.keys()
    for key, want in theirs.items():
        got = ours[key]
        if want is None or got is None:
            assert want is got, key
        else:
            np.testing.assert_array_equal(got, want, err_msg=key, strict=True)


@pytest.mark.golden("formats/caffemodel/zoo")
def test_a_saved_model_lists_the_recorded_layers_and_groups(tmp_path: Path) -> None:
    folder = GOLDEN / "formats/caffemodel/zoo"
    info, _ = recorded(folder)
    net = loaded(folder, "zoo.caffemodel")
    save_weights(net, tmp_path / "zoo.caffemodel")
    model = caffe_pb2.NetParameter.FromString((tmp_path / "zoo.caffemodel").read_bytes())
    assert [saved_layer(layer) for layer in model.layer] == info["saved_layers"]
    save_hdf5(net, tmp_path / "zoo.h5")
    assert [
        [name, None, None] if value is None else [name, list(value.shape), str(value.dtype)]
        for name, value in sorted(tree(tmp_path / "zoo.h5").items())
    ] == info["h5_tree"]


def saved_layer(layer: caffe_pb2.LayerParameter) -> list[object]:
    """Name, type, shapes, param specs and phase, as the case lists them."""
    specs = [
        {"name": p.name, "lr_mult": p.lr_mult if p.HasField("lr_mult") else None}
        for p in layer.param
    ]
    return [layer.name, layer.type, [list(b.shape.dim) for b in layer.blobs], specs, layer.phase]


@pytest.mark.golden("formats/caffemodel/slashes")
def test_names_with_slashes_survive_both_formats(tmp_path: Path) -> None:
    folder = GOLDEN / "formats/caffemodel/slashes"
    info, arrays = recorded(folder)
    net = loaded(folder, "slashes.caffemodel")
    assert [step.param.name for step in net.steps] == info["layer_names"]
    assert list(net.blob_shapes) == info["blob_names"]
    save_hdf5(net, tmp_path / "slashes.caffemodel.h5")
    again = fresh_net(folder)
    load_weights(again, tmp_path / "slashes.caffemodel.h5")
    assert torch.equal(again.flat.data, net.flat.data)
    check_outputs(again, arrays, info["tolerance"])


@pytest.mark.golden(LEGACY)
@pytest.mark.parametrize("model", LEGACY_INFO["files"])
@pytest.mark.parametrize("definition", LEGACY_INFO["nets"])
def test_an_old_model_loads_into_every_net(definition: str, model: str) -> None:
    folder = GOLDEN / LEGACY
    info, arrays = recorded(folder)
    net = fresh_net(folder, definition)
    load_weights(net, folder / model)
    for key, want in group(arrays, "param").items():
        layer, index = key.rsplit("/", 1)
        got = net.layers[layer].blobs[int(index)].detach().numpy()
        np.testing.assert_array_equal(got, want, err_msg=key, strict=True)
    check_outputs(net, arrays, info["tolerance"])


def test_an_hdf5_model_without_groups_of_blobs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flat.caffemodel.h5"
    with h5py.File(path, "w") as file:
        file["data/conv1"] = np.zeros((2, 3), np.float32)
    with pytest.raises(PrototxtError, match="/data/conv1 holds values itself"):
        load_weights(fresh_net(GOLDEN / "formats/caffemodel/zoo"), path)
