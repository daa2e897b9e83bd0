"""A layer of the user's own, in the Python processes that Spark starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from prototxt_parser.layers import registry
from trainer.cli import train_main

pytestmark = pytest.mark.cluster

MODULE = """
from prototxt_parser import Layer, register_layer
@register_layer("Same")
class Same(Layer):
    def top_shapes(self, bottoms): return list(bottoms)
    def forward(self, *bottoms): return bottoms[0] * 1
"""
NET = """
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } } }
layer { name: "s" type: "Same" bottom: "x" top: "s" }
layer { name: "i" type: "InnerProduct" bottom: "s" top: "i" inner_product_param { num_output: 3 } }
layer { name: "l" type: "EuclideanLoss" bottom: "i" bottom: "y" top: "l" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 4 snapshot_prefix: "same"'


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
