"""`torrefy device-query`, on pretended GPUs."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch

from trainer.cli import main

CARD = SimpleNamespace(
    name="card", major=9, minor=3, total_memory=150 * 2**30, multi_processor_count=132
)


def test_every_gpu_asked_for_is_described(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: CARD)
    assert main(["device_query", "-gpu", "3,1"]) == 0
    log = capsys.readouterr().err
    assert "caffe.cpp" in log.splitlines()[0]
    assert "] Querying GPUs 3,1\n" in log
    assert re.findall(r"Device id: +(\d+)", log) == ["3", "1"]
    assert re.findall(r"M\w+ revision number: +(\d+)", log) == ["9", "3", "9", "3"]
    assert log.count(f" {150 * 2**30}\n") == 2


def test_a_gpu_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main(["device-query", "-gpu", "0"]) == 2
    assert "error: -gpu 0: PyTorch finds 0 CUDA devices here" in capsys.readouterr().err
