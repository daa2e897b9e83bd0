"""Layers that make their own data or write it down, and pooling by chance."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from prototxt_parser import Net, PrototxtError, build_net
from prototxt_parser.errors import WriteError
from prototxt_parser.layers.pooling_windows import PoolingWindows
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text


def built(
    text: str, phase: str = "TRAIN", seed: int = 3, dtype: torch.dtype = torch.float32
) -> Net:
    param = parse_text(text, caffe_pb2.NetParameter(), "net")
    return build_net(param, phase, seed=seed, dtype=dtype)


DUMMY = """layer { name: "d" type: "DummyData" top: "a" top: "b" dummy_data_param {
  shape { dim: 2 dim: 3 } shape { dim: 40 dim: 50 }
  data_filler { value: 4 } data_filler { type: "gaussian" mean: 2 std: 3 } } }"""


def test_random_tops_are_drawn_anew_and_constant_ones_stay() -> None:
    net = built(DUMMY)
    first = net()["b"]
    held = net.steps[0].layer.held_tops
    assert list(held) == [0]
    held[0][1, 2] = 7
    second = net()
    assert second["a"].tolist() == [[4, 4, 4], [4, 4, 7]]
    assert not torch.equal(first, second["b"])
    assert second["b"].mean().item() == pytest.approx(2, abs=0.2)
    assert second["b"].std().item() == pytest.approx(3, abs=0.2)


def test_dummy_data_repeats_with_the_seed_and_follows_the_type() -> None:
    one, other = (built(DUMMY, dtype=torch.float64) for _ in range(2))
    for _ in range(2):
        blobs = [net() for net in (one, other)]
        assert torch.equal(blobs[0]["b"], blobs[1]["b"])
    assert {blob.dtype for blob in blobs[0].values()} == {torch.float64}
    assert one.float()()["b"].dtype == torch.float32
    assert not one.state_dict()  # what it makes itself is no parameter


def test_dummy_data_does_not_fill_an_empty_blob() -> None:
    with pytest.raises(PrototxtError, match="the blob must not be empty"):
        built(DUMMY.replace("dim: 3 }", "dim: 0 }"))


OUTPUT = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 2 } } }
layer { name: "o" type: "HDF5Output" bottom: "x" bottom: "y"
  hdf5_output_param { file_name: "out.h5" } }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(start: int, count: int, width: int = 3) -> dict[str, Tensor]:
    """Items whose values tell their number."""
    y = torch.arange(start, start + count, dtype=torch.float32)
    return {"x": y[:, None] * torch.ones(width), "y": y}


def read_output() -> tuple[list[float], list[float], tuple[int, ...]]:
    with h5py.File("out.h5") as file:
        data, label = file["data"][...], file["label"][...]
    assert data.dtype == label.dtype == np.float32
    assert label.shape == (len(data), 1, 1, 1)
    return data[:, 0, 0, 0].tolist(), label[:, 0, 0, 0].tolist(), data.shape[1:]


def test_every_pass_adds_its_rows_and_leaves_a_complete_file(folder: Path) -> None:
    net = built(OUTPUT)
    net(rows(0, 2))
    assert read_output() == ([0, 1], [0, 1], (3, 1, 1))
    net(rows(2, 5))
    assert read_output() == (list(range(7)), list(range(7)), (3, 1, 1))


def test_the_first_pass_of_a_net_replaces_the_file_and_building_does_not(folder: Path) -> None:
    built(OUTPUT)(rows(0, 2))
    net = built(OUTPUT)
    assert read_output()[0] == [0, 1]
    net(rows(5, 1))
    assert read_output()[0] == [5]


def test_rows_of_another_shape_are_refused(folder: Path) -> None:
    net = built(OUTPUT)
    net(rows(0, 2))
    with pytest.raises(PrototxtError, match=r'layer "o" .*data must keep the shape of its rows'):
        net(rows(2, 2, width=4))
    assert read_output()[0] == [0, 1]


def test_numbers_of_rows_that_differ_are_refused(folder: Path) -> None:
    net = built(OUTPUT)
    with pytest.raises(PrototxtError, match="must have the same batch size; received 2 3"):
        net(rows(0, 2) | {"y": torch.zeros(4)})
    with pytest.raises(PrototxtError, match="must have the same batch size"):
        built(OUTPUT.replace("dim: 2 }", "dim: 5 }", 1))


def test_more_than_four_axes_are_refused() -> None:
    with pytest.raises(PrototxtError, match="at most 4 axes"):
        built(OUTPUT.replace("dim: 3 }", "dim: 3 dim: 4 dim: 5 dim: 6 }"))


def test_a_file_that_cannot_be_written_is_named(folder: Path) -> None:
    net = built(OUTPUT.replace("out.h5", "no/out.h5"))
    with pytest.raises(WriteError, match=r"^no/out\.h5: cannot write: "):
        net(rows(0, 2))


def pooling(settings: str, shape: tuple[int, ...], phase: str, seed: int = 3) -> Net:
    dims = " ".join(f"dim: {dim}" for dim in shape)
    return built(
        f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}'
        f'layer {{ name: "p" bottom: "x" top: "y" {settings} }}',
        phase,
        seed,
    )


STOCHASTIC = 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }'


def windows_of(x: Tensor) -> list[list[Tensor]]:
    """The windows of 3 x 3 in steps of 2 of one plane, cut at its end."""
    return [
        [x[..., i : i + 3, j : j + 3].flatten(-2) for j in range(0, x.shape[-1] - 1, 2)]
        for i in range(0, x.shape[-2] - 1, 2)
    ]


def test_stochastic_test_is_the_expectation() -> None:
    x = torch.rand(2, 3, 6, 8)
    x[0, 0, :3, :3] = 0
    wanted = torch.stack(
        [torch.stack([(w**2).sum(-1) / w.sum(-1) for w in row], dim=-1) for row in windows_of(x)],
        dim=-2,
    ).nan_to_num(0)
    got = pooling(STOCHASTIC, (2, 3, 6, 8), "TEST")({"x": x})["y"]
    torch.testing.assert_close(got, wanted)
    assert got[0, 0, 0, 0] == 0
    negative = pooling(STOCHASTIC, (2, 3, 6, 8), "TEST")({"x": -x})["y"]
    assert not negative.any()


def test_stochastic_train_picks_pixels_as_often_as_they_weigh() -> None:
    """Windows of 2 x 2 with 1, 2, 3, 4: each is picked with a tenth of its value."""
    settings = STOCHASTIC.replace("kernel_size: 3", "kernel_size: 2")
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).tile(1, 1, 50, 60).requires_grad_()
    net = pooling(settings, (1, 1, 100, 120), "TRAIN")
    y = net({"x": x})["y"]
    shares = [(y == value).float().mean().item() for value in (1, 2, 3, 4)]
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)
    y.backward(torch.full_like(y, 5))
    assert x.grad is not None
    picked = x.grad.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    assert torch.equal(picked.sum(-1), torch.full_like(y, 5))
    assert torch.equal((picked * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum(-1) / 5, y)
    assert not torch.equal(net({"x": x})["y"], y)


def test_stochastic_train_without_a_positive_value_is_zero() -> None:
    net = pooling(STOCHASTIC, (1, 2, 7, 9), "TRAIN")
    assert not net({"x": torch.zeros(1, 2, 7, 9)})["y"].any()
    some = net({"x": -torch.rand(1, 2, 7, 9)})["y"]
    assert some.isfinite().all()


def test_pixels_are_those_of_caffes_loops() -> None:
    x = torch.rand(1, 1, 6, 8)
    pixels = PoolingWindows((3, 3), (2, 2), (0, 0)).pixels(x)
    for i, row in enumerate(windows_of(x)):
        for j, window in enumerate(row):
            assert pixels[0, 0, i, j].sum() == pytest.approx(window.sum().item())


def test_stochastic_spp_pools_every_level() -> None:
    settings = 'type: "SPP" spp_param { pyramid_height: 2 pool: STOCHASTIC }'
    x = torch.rand(2, 3, 4, 6)
    y = pooling(settings, (2, 3, 4, 6), "TEST")({"x": x})["y"]
    whole = (x**2).sum((2, 3)) / x.sum((2, 3))
    corner = (x[:, :, :2, :3] ** 2).sum((2, 3)) / x[:, :, :2, :3].sum((2, 3))
    torch.testing.assert_close(y[:, :3], whole)
    torch.testing.assert_close(y[:, 3::4], corner)
