"""Distributions and settings of the weight fillers."""

from __future__ import annotations

import math

import pytest
import torch

from prototxt_parser.errors import LayerError
from prototxt_parser.fillers import fill
from prototxt_parser.proto.caffe_pb2 import FillerParameter


def filled(shape: tuple[int, ...], **settings: object) -> torch.Tensor:
    blob = torch.zeros(shape)
    fill(blob, FillerParameter(**settings), torch.Generator().manual_seed(5))  # type: ignore[arg-type]
    return blob


def test_constant_is_the_default_and_zero() -> None:
    assert bool((filled((3, 4)) == 0).all())
    assert bool((filled((3, 4), type="constant", value=2.5) == 2.5).all())


def test_uniform_stays_in_its_range() -> None:
    blob = filled((300, 401), type="uniform", min=-2, max=3)
    assert -2 <= blob.min() < -1.99 and 2.99 < blob.max() <= 3
    assert blob.mean() == pytest.approx(0.5, abs=0.02)


def test_gaussian_has_mean_and_deviation() -> None:
    blob = filled((300, 401), type="gaussian", mean=1, std=0.1)
    assert blob.mean() == pytest.approx(1, abs=0.002)
    assert blob.std() == pytest.approx(0.1, rel=0.02)


def test_sparse_gaussian_keeps_so_many_values_per_input() -> None:
    blob = filled((50, 4001), type="gaussian", sparse=15)
    assert (blob != 0).float().sum(dim=0).mean() == pytest.approx(15, rel=0.02)


@pytest.mark.parametrize(
    ("norm", "n"),
    [("FAN_IN", 30 * 25), ("FAN_OUT", 200 * 25), ("AVERAGE", (30 * 25 + 200 * 25) / 2)],
)
def test_xavier_and_msra_scale_by_fan(norm: str, n: float) -> None:
    bound = math.sqrt(3 / n)
    blob = filled((200, 30, 5, 5), type="xavier", variance_norm=norm)
    assert blob.abs().max() == pytest.approx(bound, rel=0.01)
    blob = filled((200, 30, 5, 5), type="msra", variance_norm=norm)
    assert blob.std() == pytest.approx(math.sqrt(2 / n), rel=0.02)


def test_positive_unitball_rows_sum_to_one() -> None:
    blob = filled((7, 3, 5), type="positive_unitball")
    torch.testing.assert_close(blob.sum(dim=(1, 2)), torch.ones(7))
    assert bool((blob >= 0).all())


def test_bilinear_is_the_upsampling_kernel() -> None:
    blob = filled((2, 3, 4, 4), type="bilinear")
    profile = torch.tensor([0.25, 0.75, 0.75, 0.25])
    torch.testing.assert_close(blob[1, 2], torch.outer(profile, profile))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "Xavier"}, "Unknown filler name: Xavier"),
        ({"type": "xavier", "sparse": 3}, "Sparsity not supported by this Filler."),
        ({"type": "gaussian", "std": -1}, "std must be > 0; received -1"),
        ({"type": "gaussian", "sparse": 9}, "sparse must be at most the number of outputs, 3"),
        ({"type": "uniform", "min": 2}, "min must be <= max"),
        ({"type": "bilinear"}, "Blob must be 4 dim."),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(LayerError, match=message):
        filled((3, 4), **settings)
