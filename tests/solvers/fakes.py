"""A small net, a solver file and data that needs no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from prototxt_parser.data_spec import DataSpec
from prototxt_parser.proto.caffe_pb2 import SolverParameter
from prototxt_parser.text import parse_text
from solvers import Solver

NET = """
name: "tiny"
layer { name: "feed" type: "Data" top: "x" top: "y" }
layer { name: "hid" type: "InnerProduct" bottom: "x" top: "hid"
  param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 7 weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "hid" top: "hid" }
layer { name: "act" type: "ReLU" bottom: "hid" top: "hid" }
layer { name: "drop" type: "Dropout" bottom: "hid" top: "hid" }
layer { name: "score" type: "InnerProduct" bottom: "hid" top: "score"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "score" bottom: "y" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "y" top: "loss" }
"""


class CountingFeed:
    """Batches made from their number, so that a position is one integer."""

    shapes: Mapping[str, tuple[int, ...]] = {"x": (5, 4), "y": (5,)}

    def __init__(self) -> None:
        self.position = 0

    def next(self) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(self.position)
        self.position += 1
        labels = torch.randint(0, 3, (5,), generator=generator).float()
        return {"x": torch.randn(5, 4, generator=generator) + labels[:, None], "y": labels}

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.position = state["position"]

    def close(self) -> None:
        pass


def open_counting(specs: Sequence[DataSpec]) -> CountingFeed:
    assert [spec.name for spec in specs] == ["feed"]
    return CountingFeed()


def solver_param(folder: Path, extra: str = "") -> SolverParameter:
    """Settings of a short run with tests and snapshots into `folder`; `extra` overrides."""
    net = folder / "tiny.prototxt"
    net.write_text(NET)
    text = (
        f'net: "{net}" base_lr: 0.05 lr_policy: "step" gamma: 0.5 stepsize: 6 momentum: 0.9 '
        f'weight_decay: 0.01 max_iter: 20 snapshot_prefix: "{folder / "tiny"}" random_seed: 11 '
    )
    param = parse_text(text, SolverParameter(), "solver.prototxt")
    param.MergeFrom(parse_text(extra, SolverParameter(), "extra"))
    return param


def make(folder: Path, extra: str = "") -> Solver:
    return Solver(solver_param(folder, extra), open_counting)
