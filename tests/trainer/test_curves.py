"""Training real data from Caffe's recorded weights follows Caffe's recorded losses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from golden_cases import GOLDEN
from prototxt_parser import build_net, load_weights, read_net, read_solver
from prototxt_parser.blobs import blob_to_tensor
from prototxt_parser.proto.caffe_pb2 import BlobProto
from solvers import Callback, Solver
from trainer.data.datasets import IMAGE_SETS, prepare
from trainer.data.feed import open_feed

CURVES = GOLDEN / "curves"


class Losses(Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_iteration(self, solver: Solver, loss: float) -> None:
        self.values.append(loss)


@pytest.fixture(scope="module")
def databases(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST and CIFAR-10 as Caffe's example scripts make them."""
    folder = tmp_path_factory.mktemp("databases")
    for name in ("mnist", "cifar10"):
        prepare(IMAGE_SETS[name], folder / name, real_data / name)
    return folder


@pytest.fixture
def make_solver(databases: Path) -> Iterator[Callable[..., Solver]]:
    """Make solvers of shipped models over the real data, closed after the test."""
    with ExitStack() as opened:

        def make(model: str, weights: Path, **settings: float) -> Solver:
            solver = new_solver(databases, model, weights, **settings)
            opened.callback(solver.close)
            return solver

        yield make


def new_solver(databases: Path, model: str, weights: Path, **settings: float) -> Solver:
    param = read_solver(f"{model}_solver.prototxt")
    param.snapshot = param.display = 0
    for name, value in settings.items():
        setattr(param, name, value)
    data = databases / ("mnist" if model == "lenet" else "cifar10")
    solver = Solver(param, partial(open_feed, seed=1, data_dir=data), seed=1)
    solver.load_weights(weights)
    return solver


def train(solver: Solver, count: int) -> np.ndarray:
    losses = Losses()
    solver.callbacks.append(losses)
    solver.advance(count)
    return np.array(losses.values)


def recorded(case: str) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    folder = CURVES / case
    return json.loads((folder / "case.json").read_text()), dict(np.load(folder / "case.npz"))


def check_losses(losses: np.ndarray, want: np.ndarray, bands: dict[str, object]) -> None:
    for until, band in bands.items():
        if isinstance(band, float):
            error = np.abs(losses / want - 1)[: int(until)].max()
            assert error <= band, f"first {until} iterations"


def check_block_means(losses: np.ndarray, want: np.ndarray) -> None:
    """Beyond rounding chaos: the mean loss of every 50 iterations, within 4 %."""
    means = [values.reshape(-1, 50).mean(axis=1) for values in (losses, want)]
    np.testing.assert_allclose(means[0], means[1], rtol=0.04)


def check_norms(solver: Solver, arrays: dict[str, np.ndarray], iteration: int, rtol: float) -> None:
    row = list(arrays["norm_iters"]).index(iteration)
    blobs = solver.net.flat.split(solver.net.flat.data)
    norms = [float(torch.linalg.vector_norm(blob.double())) for blob in blobs]
    np.testing.assert_allclose(norms, arrays["f64/param_l2"][row], rtol=rtol, atol=1e-6)


@pytest.mark.data
@pytest.mark.golden("curves/lenet_200")
def test_lenet_follows_caffe(make_solver: Callable[..., Solver]) -> None:
    info, arrays = recorded("lenet_200")
    solver = make_solver("lenet", CURVES / "lenet_200" / "init.caffemodel")
    results, losses = [solver.test_all()[0]], []
    for _ in range(2):
        solver.callbacks.clear()
        losses.append(train(solver, 100))
        results.append(solver.test_all()[0])
        check_norms(solver, arrays, solver.iteration, 1e-3 if solver.iteration == 100 else 1e-2)
    check_losses(
        np.concatenate(losses),
        arrays["loss"],
        info["suggested_band"]["loss_rel_over_first_iterations"],
    )  # type: ignore[index]
    accuracy = [result["accuracy"] for result in results]
    np.testing.assert_allclose(accuracy, arrays["f64/test_accuracy"], atol=0.005)
    assert results[0]["loss"] == pytest.approx(arrays["f64/test_loss"][0], rel=1e-4)


@pytest.mark.data
@pytest.mark.golden("curves/cifar10_quick_300")
def test_cifar10_quick_follows_caffe(make_solver: Callable[..., Solver]) -> None:
    info, arrays = recorded("cifar10_quick_300")
    start = CURVES / "cifar10_quick_300"
    solver = make_solver("cifar10_quick", start / "init.caffemodel", test_interval=100)
    results = []

    class Tests(Callback):
        def on_test(self, solver: Solver, outputs: list[dict[str, float]]) -> None:  # type: ignore[override]
            results.append(outputs[0]["accuracy"])

    solver.callbacks.append(Tests())
    losses = train(solver, 300)
    solver.test_all()
    check_losses(losses, arrays["loss"], info["suggested_band"]["loss_rel_over_first_iterations"])  # type: ignore[index]
    check_block_means(losses, arrays["loss"])
    want = [accuracy for accuracy, _ in info["tests"].values()]  # type: ignore[attr-defined]
    assert results[0] == pytest.approx(want[0], abs=1e-4)
    np.testing.assert_allclose(results[1:], want[1:], atol=0.04)


@pytest.mark.data
@pytest.mark.golden("curves/cifar10_quick_from_trained_100")
def test_trained_cifar10_quick_follows_caffe(make_solver: Callable[..., Solver]) -> None:
    info, arrays = recorded("cifar10_quick_from_trained_100")
    trained = CURVES / "cifar10_quick_trained" / "trained.caffemodel.h5"
    solver = make_solver("cifar10_quick", trained, base_lr=0.0001, test_initialization=0)
    losses = train(solver, 100)
    check_losses(losses, arrays["loss"], info["suggested_band"]["loss_rel_over_first_iterations"])  # type: ignore[index]
    check_norms(solver, arrays, 100, 1e-3)


@pytest.mark.data
@pytest.mark.golden("curves/cifar10_quick_trained")
@pytest.mark.parametrize("suffix", ["", ".h5"])
def test_trained_model_scores_as_in_caffe(make_solver: Callable[..., Solver], suffix: str) -> None:
    info, arrays = recorded("cifar10_quick_trained")
    feed = (
        make_solver("cifar10_quick", CURVES / "cifar10_quick_trained" / "trained.caffemodel")
        .tests[0]
        .feed
    )
    net = build_net(read_net("cifar10_quick.prototxt"), "TEST", input_shapes=feed.shapes)
    load_weights(net, CURVES / "cifar10_quick_trained" / f"trained.caffemodel{suffix}")
    scores, losses, accuracies = [], [], []
    with torch.no_grad():
        for _ in range(100):
            outputs = net(feed.next())
            scores.append(net.blobs["ip2"])
            losses.append(float(outputs["loss"]))
            accuracies.append(float(outputs["accuracy"]))
    np.testing.assert_allclose(scores[0], arrays["scores_first_100"], atol=1e-3)
    np.testing.assert_allclose(losses, arrays["batch_loss"], rtol=1e-4)
    np.testing.assert_allclose(accuracies, arrays["batch_accuracy"], atol=0.0101)
    predicted = torch.cat(scores).argmax(dim=1).numpy()
    assert (predicted == arrays["predicted"]).mean() >= 0.9995
    assert np.mean(accuracies) == pytest.approx(info["test_accuracy"], abs=5e-4)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(3600)  # against a hang; it takes minutes
@pytest.mark.golden("curves/cifar10_quick_full")
def test_whole_schedule_of_cifar10_quick_ends_where_caffes_does(
    make_solver: Callable[..., Solver],
) -> None:
    _, arrays = recorded("cifar10_quick_full")
    start = CURVES / "cifar10_quick_300" / "init.caffemodel"
    solver = make_solver("cifar10_quick", start, test_interval=5001, test_initialization=0)
    torch.set_num_threads(2)
    try:
        losses = [train(solver, 4000)]
        solver.param.base_lr = 0.0001
        solver.callbacks.clear()
        losses.append(train(solver, 1000))
        accuracy = solver.test_all()[0]["accuracy"]
    finally:
        torch.set_num_threads(1)
    assert accuracy == pytest.approx(arrays["f64/test_accuracy"][-1], abs=0.015)
    blocks = [v.reshape(-1, 500).mean(axis=1) for v in (np.concatenate(losses), arrays["loss"])]
    np.testing.assert_allclose(blocks[0], blocks[1], rtol=0.05)


@pytest.mark.data
def test_prepared_mean_is_caffes(databases: Path) -> None:
    ours, theirs = (
        BlobProto.FromString(path.read_bytes())
        for path in (
            databases / "cifar10" / "mean.binaryproto",
            CURVES / "cifar10_quick_300" / "mean.binaryproto",
        )
    )
    torch.testing.assert_close(blob_to_tensor(ours), blob_to_tensor(theirs), rtol=1e-6, atol=1e-4)
    assert (ours.num, ours.channels, ours.height, ours.width) == (1, 3, 32, 32)
