"""Which device a run takes."""

from __future__ import annotations

import pytest
import torch

from prototxt_parser.proto.caffe_pb2 import SolverParameter
from prototxt_parser.text import parse_text
from trainer.device import choose_device
from trainer.errors import UsageError

NO_GPU = "solver_mode: GPU, but PyTorch finds no CUDA device here: using the CPU"


@pytest.mark.parametrize(
    ("text", "with_gpu", "without"),
    [
        ("", "cpu", ("cpu", "")),  # the field's default is GPU, but only what is written counts
        ("solver_mode: CPU", "cpu", ("cpu", "")),
        ("solver_mode: GPU", "cuda:0", ("cpu", NO_GPU)),
        ("solver_mode: GPU device_id: 2", "cuda:2", ("cpu", NO_GPU)),
    ],
)
def test_only_a_written_solver_mode_asks_for_the_gpu(
    text: str, with_gpu: str, without: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    param = parse_text(text, SolverParameter(), "solver")
    assert param.solver_mode == SolverParameter.GPU or "CPU" in text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto", param) == (with_gpu, "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", param) == without


def test_a_device_that_is_asked_for_and_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="--device nowhere: PyTorch cannot use it here"):
        choose_device("nowhere", SolverParameter())
