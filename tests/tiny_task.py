"""A tiny classification task on real LMDBs, for runs that take a second."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from prototxt_parser import NetDefinition
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text
from solvers import Action, Callback, Solver
from trainer.coordinator import RunResult, run_distributed
from trainer.data.database import write_database
from trainer.data.feed import open_feed
from trainer.plan import IN_PROCESS, DistributedPlan
from trainer.strategies import Options, get_strategy

SEED = 5
_NET = """
name: "tiny"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  data_param { source: "train_lmdb" batch_size: 5 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  data_param { source: "test_lmdb" batch_size: 8 backend: LMDB } }
layer { name: "hidden" type: "InnerProduct" bottom: "data" top: "hidden"
  inner_product_param { num_output: 7 weight_filler { type: "xavier" } } }
EXTRA
layer { name: "relu" type: "ReLU" bottom: "hidden" top: "hidden" }
layer { name: "score" type: "InnerProduct" bottom: "hidden" top: "score"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "score" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""
BATCH_NORM = 'layer { name: "bn" type: "BatchNorm" bottom: "hidden" top: "hidden" }'
DROPOUT = 'layer { name: "drop" type: "Dropout" bottom: "hidden" top: "hidden" }'


def write_data(folder: Path) -> None:
    """Write 60 images of shape (2, 3, 1), labelled by their largest part, and 16 to test."""
    random = np.random.default_rng(1701)
    for name, count in (("train_lmdb", 60), ("test_lmdb", 16)):
        images = random.integers(0, 40, size=(count, 2, 3, 1), dtype=np.uint8)
        labels = random.integers(0, 4, size=count)
        for image, label in zip(images, labels, strict=True):
            image.reshape(-1)[label] += 150
        write_database(folder / name, enumerate_datums(images, labels))


def enumerate_datums(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, bytes]]:
    return [
        (
            f"{index:05d}".encode(),
            caffe_pb2.Datum(
                channels=2, height=3, width=1, data=image.tobytes(), label=int(label)
            ).SerializeToString(),
        )
        for index, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def tiny_net(extra: str = "") -> NetDefinition:
    return NetDefinition(parse_text(_NET.replace("EXTRA", extra), caffe_pb2.NetParameter(), "tiny"))


def tiny_param(folder: Path, **settings: Any) -> caffe_pb2.SolverParameter:
    values: dict[str, Any] = {
        "base_lr": 0.00003,
        "lr_policy": "fixed",
        "momentum": 0.9,
        "max_iter": 40,
        "test_iter": [2],
        "test_interval": 20,
        "snapshot_prefix": str(folder / "tiny"),
    }
    return caffe_pb2.SolverParameter(**(values | settings))


def open_solver(folder: Path, param: caffe_pb2.SolverParameter, net: NetDefinition) -> Solver:
    return Solver(
        param, partial(open_feed, seed=SEED, data_dir=folder), net=net, seed=SEED, device="cpu"
    )


@dataclass
class Recorder:
    """An observer that keeps what it hears."""

    progress: list[tuple[int, float]] = field(default_factory=list)
    exchanges: list[Mapping[str, Any]] = field(default_factory=list)
    tests: list[tuple[int, float]] = field(default_factory=list)
    events: list[tuple[str, int, Mapping[str, Any]]] = field(default_factory=list)

    def on_progress(self, iteration: int, loss: float) -> None:
        self.progress.append((iteration, loss))

    def on_exchange(self, record: Mapping[str, Any]) -> None:
        self.exchanges.append(record)

    def on_event(self, what: str, iteration: int, values: Mapping[str, Any]) -> None:
        self.events.append((what, iteration, values))


class KeepTests(Callback):
    """Keeps the accuracy of every test."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def on_test(self, solver: Solver, results: Sequence[dict[str, float]]) -> None:
        self._recorder.tests.append((solver.iteration, results[0]["accuracy"]))


@dataclass
class Outcome:
    """What a run left behind."""

    parameters: Tensor
    history: list[Tensor]
    result: RunResult
    recorder: Recorder


def lone_worker(folder: Path, rank: int, workers: int, extra: str = "", **settings: Any) -> Solver:
    """Return a plain solver on one worker's data that begins where the run begins."""
    common: dict[str, Any] = {"net": tiny_net(extra), "with_test_nets": False}
    feed = partial(open_feed, seed=SEED, data_dir=folder)
    param = tiny_param(folder, **settings)
    start = Solver(param, feed, seed=SEED, **common)
    own = partial(feed, rank=rank, world_size=workers)
    solver = Solver(param, own, seed=SEED + rank, lr_stride=workers, **common)
    solver.net.flat.data.copy_(start.net.flat.data)
    start.close()
    return solver


def make_plan(strategy: str, workers: int, folder: Path, **settings: Any) -> DistributedPlan:
    """Return a plan; settings that are options of the strategy become its options."""
    options_type = get_strategy(strategy).options_type
    names = set(options_type.__dataclass_fields__)
    options: Options = options_type(**{k: v for k, v in settings.items() if k in names})
    rest = {k: v for k, v in settings.items() if k not in names}
    defaults = {"seed": SEED, "data_dir": folder, "master": IN_PROCESS, "max_iter": 40}
    return DistributedPlan(
        strategy=strategy, options=options, num_workers=workers, **(defaults | rest)
    )


def run_plan(
    plan: DistributedPlan,
    folder: Path,
    extra: str = "",
    poll: Callable[[], Action] = lambda: Action.NONE,
    change: Callable[[Solver], None] = lambda solver: None,
    recorder: Recorder | None = None,
    **settings: Any,
) -> Outcome:
    """Run a plan on the tiny task; `change` prepares the driver's solver."""
    param, net = tiny_param(folder, **({"max_iter": plan.max_iter} | settings)), tiny_net(extra)
    solver, recorder = open_solver(folder, param, net), recorder or Recorder()
    solver.callbacks.append(KeepTests(recorder))
    try:
        change(solver)
        result = run_distributed(solver, plan, observer=recorder, net=net, poll=poll)
        history = [slot.clone() for slot in solver.history]
        return Outcome(solver.net.flat.data.clone(), history, result, recorder)
    finally:
        solver.close()


def run_single(folder: Path, extra: str = "", **settings: Any) -> tuple[Tensor, list[Tensor]]:
    """Run the plain solver on the tiny task."""
    solver = open_solver(folder, tiny_param(folder, **settings), tiny_net(extra))
    try:
        solver.solve()
        return solver.net.flat.data.clone(), [slot.clone() for slot in solver.history]
    finally:
        solver.close()
