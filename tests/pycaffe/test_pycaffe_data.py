"""The recorded data layers, run inside of pycaffe's nets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import pycaffe as caffe
from golden_cases import golden_cases

PHASES = {"TRAIN": caffe.TRAIN, "TEST": caffe.TEST}
DATA_LAYERS = [f"formats/{kind}" for kind in ("data", "image_data", "hdf5_data", "window_data")]


@pytest.mark.parametrize("folder", golden_cases(*DATA_LAYERS))
def test_data_layer_puts_out_what_caffe_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    info = json.loads(Path("case.json").read_text())
    arrays = dict(np.load("case.npz"))
    net = caffe.Net("net.prototxt", PHASES[info["phase"]])
    for number in range(info["forwards"]):
        net.forward()
        recorded = {key: v for key, v in arrays.items() if key.startswith(f"out/{number}/")}
        assert recorded
        for key, value in recorded.items():
            got = net.blobs[key.split("/")[2]].data
            assert got.shape == value.shape
            np.testing.assert_allclose(got, value, rtol=0, atol=info["abs_tolerance"])
