"""A layer of the user's own, in the Python processes that Spark starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from prototxt_parser.layers import registry
from trainer.cli import train_main
from user_layer import MODULE, NET, SOLVER

pytestmark = pytest.mark.cluster


def test_every_worker_loads_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_LAYERS", dict(registry._LAYERS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "same_layer", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("same_layer.py").write_text(MODULE)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    words = ["--solver", "solver.prototxt", "--layer-module", "same_layer", "--workers", "2"]
    assert train_main(words) == 0
    assert Path("same_iter_4.caffemodel").exists()
