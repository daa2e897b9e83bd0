"""Whole runs of every strategy, against its formula in float64 and against a single machine."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from solvers import Action, Solver
from tiny_task import (
    BATCH_NORM,
    DROPOUT,
    Outcome,
    lone_worker,
    make_plan,
    run_plan,
    run_single,
)
from trainer.errors import UsageError
from trainer.strategies import strategy_names

Values = NDArray[np.float64]
SOLVER = {"momentum": 0.5, "weight_decay": 0.01, "lr_policy": "inv", "gamma": 0.1, "power": 0.75}


def values(solver: Solver) -> Values:
    return solver.net.flat.data.double().numpy().copy()


def put(solver: Solver, parameters: Values) -> None:
    solver.net.flat.data.copy_(torch.from_numpy(parameters))


def statistics(solver: Solver) -> NDArray[np.bool_]:
    """Return where the running statistics lie."""
    found = np.zeros(solver.net.flat.data.numel(), bool)
    for segment in solver.net.flat.segments:
        found[segment.slice] = segment.is_statistic
    return found


# Synchronous: what all workers together do after each phase. Asynchronous: what one does. Each
# returns the workers' new parameters, and changes x̃ and the rest of the state in place.


def sparknet(xs: Sequence[Values], center: Values, state: Values) -> Sequence[Values]:
    del state
    center[:] = np.mean(xs, axis=0)
    return [center] * len(xs)


def easgd(xs: Sequence[Values], center: Values, state: Values) -> Sequence[Values]:
    del state
    mean, old = np.mean(xs, axis=0), center.copy()
    center += len(xs) * 0.2 * (mean - center)
    return [x - 0.2 * (x - old) for x in xs]


def diloco(xs: Sequence[Values], center: Values, state: Values) -> Sequence[Values]:
    delta = center - np.mean(xs, axis=0)
    state[:] = 0.6 * state + delta
    center -= 0.8 * (delta + 0.6 * state)
    return [center] * len(xs)


SYNCHRONOUS: dict[str, tuple[Callable[..., Sequence[Values]], dict[str, Any]]] = {
    "sparknet": (sparknet, {}),
    "easgd": (easgd, {"moving_rate": 0.2}),
    "diloco": (diloco, {"outer_lr": 0.8, "outer_momentum": 0.6}),
}


@pytest.mark.parametrize("extra", ["", BATCH_NORM])
@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("strategy", SYNCHRONOUS)
def test_synchronous_strategy_is_its_formula(
    folder: Path, strategy: str, workers: int, extra: str
) -> None:
    formula, options = SYNCHRONOUS[strategy]
    plan = make_plan(strategy, workers, folder, max_iter=12 * workers, sync_interval=4, **options)
    outcome = run_plan(plan, folder, extra, **SOLVER)
    solvers = [lone_worker(folder, rank, workers, extra, **SOLVER) for rank in range(workers)]
    center, where = values(solvers[0]), statistics(solvers[0])
    state = np.zeros_like(center)
    for _ in range(3):
        for solver in solvers:
            solver.step(4)
        mean = np.mean([values(solver) for solver in solvers], axis=0)
        moved = formula([values(solver) for solver in solvers], center, state)
        center[where] = mean[where]
        for solver, parameters in zip(solvers, moved, strict=True):
            put(solver, np.where(where, mean, parameters))
    assert where.any() == bool(extra)
    np.testing.assert_allclose(outcome.parameters.numpy(), center, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(outcome.history[0], solvers[0].history[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("extra", ["", BATCH_NORM])
@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_sync_is_one_machine_with_the_workers_batches(
    folder: Path, workers: int, extra: str, kind: str
) -> None:
    """The gradient clipped and regularised is the mean, by whatever rule the solver has."""
    settings = {**SOLVER, "type": kind, "iter_size": 2, "clip_gradients": 20.0}
    outcome = run_plan(
        make_plan("sync", workers, folder, max_iter=5 * workers), folder, extra, **settings
    )
    solvers = [lone_worker(folder, rank, workers, extra, **settings) for rank in range(workers)]
    where = statistics(solvers[0])
    for _ in range(5):
        for solver in solvers:
            solver.forward_backward()
        gradient = sum(solver.net.flat.grad for solver in solvers) / workers
        mean = np.mean([values(solver) for solver in solvers], axis=0)
        for solver in solvers:
            put(solver, np.where(where, mean, values(solver)))
            solver.net.flat.grad.copy_(gradient)
            solver.apply_update()
    torch.testing.assert_close(outcome.parameters, solvers[0].net.flat.data, rtol=1e-4, atol=1e-6)


class Server:
    """The centre of an asynchronous run in float64."""

    def __init__(self, center: Values, where: NDArray[np.bool_], workers: int) -> None:
        self.center, self.squares = center, np.zeros_like(center)
        self._where, self._workers = where, workers

    def take_statistics(self, x: Values) -> None:
        where = self._where
        self.center[where] += (x[where] - self.center[where]) / self._workers

    def elastic(self, x: Values, seen: Values, pushed: Values) -> Values:
        del seen, pushed
        d = np.where(self._where, 0, 0.3 * (x - self.center))
        self.center += d
        self.take_statistics(x)
        return x - d

    def subtract(self, x: Values, seen: Values, pushed: Values) -> Values:
        pushed += np.where(self._where, 0, seen - x)
        self.center -= pushed
        self.take_statistics(x)
        return np.where(self._where, x, self.center)

    def adagrad(self, x: Values, seen: Values, pushed: Values) -> Values:
        pushed += np.where(self._where, 0, seen - x)
        self.squares += pushed**2
        root = np.sqrt(self.squares)
        self.center -= np.divide(0.05 * pushed, root, out=np.zeros_like(root), where=root > 0)
        self.take_statistics(x)
        return np.where(self._where, x, self.center)

    def overwrite_statistics(self, x: Values, seen: Values, pushed: Values) -> Values:
        pushed += np.where(self._where, 0, seen - x)
        self.center -= pushed
        self.center[self._where] = x[self._where]
        return self.center.copy()


ASYNCHRONOUS: dict[str, tuple[str, Callable[..., Values], int, dict[str, Any]]] = {
    "easgd": (
        "easgd",
        Server.elastic,
        4,
        {"asynchronous": True, "moving_rate": 0.3, "sync_interval": 4},
    ),
    "deepspark": ("deepspark", Server.elastic, 4, {"moving_rate": 0.3, "sync_interval": 4}),
    "asysg": ("asysg", Server.subtract, 1, {}),
    "hogwild": ("hogwild", Server.overwrite_statistics, 1, {}),
    "downpour": ("downpour", Server.subtract, 4, {"n_push": 4, "n_fetch": 4}),
    "adagrad": (
        "downpour",
        Server.adagrad,
        4,
        {"n_push": 4, "n_fetch": 4, "server_adagrad": 0.05},
    ),
}


# Not Adagrad with BatchNorm: it makes steps of the rounding errors that are the gradient of a bias
# that BatchNorm takes away.
ASYNCHRONOUS_CASES = [(case, "") for case in ASYNCHRONOUS] + [
    (case, BATCH_NORM) for case in ASYNCHRONOUS if case != "adagrad"
]


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize(("case", "extra"), ASYNCHRONOUS_CASES)
def test_asynchronous_strategy_is_its_formula(
    folder: Path, case: str, workers: int, extra: str
) -> None:
    """In turns the exchanges come by rank, so the run is one of many, and always the same."""
    strategy, formula, period, options = ASYNCHRONOUS[case]
    plan = make_plan(strategy, workers, folder, max_iter=12 * workers, **options)
    outcome = run_plan(plan, folder, extra, **SOLVER)
    solvers = [lone_worker(folder, rank, workers, extra, **SOLVER) for rank in range(workers)]
    server = Server(values(solvers[0]), statistics(solvers[0]), workers)
    for _ in range(12 // period):
        for solver in solvers:
            seen = values(solver)
            solver.step(period)
            put(solver, formula(server, values(solver), seen, np.zeros_like(seen)))
    np.testing.assert_allclose(outcome.parameters.numpy(), server.center, rtol=1e-4, atol=1e-6)


def test_downpour_pushes_and_fetches_at_intervals_of_their_own(folder: Path) -> None:
    options = {"n_push": 2, "n_fetch": 3}
    outcome = run_plan(make_plan("downpour", 2, folder, max_iter=26, **options), folder, **SOLVER)
    solvers = [lone_worker(folder, rank, 2, **SOLVER) for rank in range(2)]
    center = values(solvers[0])
    pushed = [np.zeros_like(center) for _ in solvers]
    for done in (2, 3, 4, 6, 8, 9, 10, 12, 13):
        for solver, waiting in zip(solvers, pushed, strict=True):
            seen = values(solver)
            solver.step(done - solver.iteration)
            waiting += seen - values(solver)
            if done % 2 == 0 or done == 13:
                center -= waiting
                waiting[:] = 0
            if done % 3 == 0:
                put(solver, center)
    np.testing.assert_allclose(outcome.parameters.numpy(), center, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("extra", ["", DROPOUT, BATCH_NORM])
@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("sync", {}),
        ("sparknet", {"post_local": 7, "sync_interval": 4}),
        ("easgd", {"moving_rate": 0.0, "center_rate": 1.0}),
        ("diloco", {"outer_lr": 1.0, "outer_momentum": 0.0, "sync_interval": 5}),
        ("asysg", {"max_staleness": 0}),
        ("hogwild", {}),
        ("downpour", {}),
    ],
)
def test_one_worker_is_the_plain_solver(
    folder: Path, strategy: str, options: dict[str, Any], extra: str
) -> None:
    settings = {**SOLVER, "iter_size": 2}
    parameters, history = run_single(folder, extra, max_iter=43, **settings)
    outcome = run_plan(
        make_plan(strategy, 1, folder, max_iter=43, **options), folder, extra, **settings
    )
    if strategy in ("diloco", "downpour"):  # x̃ - (x̃ - x) rounds
        torch.testing.assert_close(outcome.parameters, parameters, rtol=1e-4, atol=1e-6)
    else:
        assert torch.equal(outcome.parameters, parameters)
    if strategy in ("sync", "sparknet", "easgd"):
        assert torch.equal(outcome.history[0], history[0])


@pytest.mark.parametrize("extra", ["", BATCH_NORM])
def test_one_worker_goes_on_from_a_warm_start(folder: Path, extra: str) -> None:
    """Only Dropout, which the worker draws from its own seed anew, would tell."""
    parameters, history = run_single(folder, extra, max_iter=43, **SOLVER)
    plan = make_plan("sparknet", 1, folder, max_iter=43, warm_start=11)
    outcome = run_plan(plan, folder, extra, **SOLVER)
    assert torch.equal(outcome.parameters, parameters)
    assert torch.equal(outcome.history[0], history[0])


def test_diloco_without_outer_momentum_is_sparknet(folder: Path) -> None:
    common = {"max_iter": 60, "sync_interval": 5}
    diloco = make_plan("diloco", 3, folder, outer_lr=1.0, outer_momentum=0.0, **common)
    sparknet = run_plan(make_plan("sparknet", 3, folder, **common), folder)
    torch.testing.assert_close(
        run_plan(diloco, folder).parameters, sparknet.parameters, rtol=1e-4, atol=1e-6
    )


def test_sync_is_sparknet_at_every_iteration_where_updates_are_linear(folder: Path) -> None:
    """With uneven shares too: who has nothing left gives zeros, as an unchanged copy does."""
    settings = {"momentum": 0.0, "weight_decay": 0.01}
    sync = run_plan(make_plan("sync", 3, folder, max_iter=32), folder, **settings)
    plan = make_plan("sparknet", 3, folder, max_iter=32, sync_interval=1)
    sparknet = run_plan(plan, folder, **settings)
    assert (sync.result.iteration, sync.result.samples) == (32, 160)
    # The weight decay of a worker that rests is in the one and not in the other.
    torch.testing.assert_close(sync.parameters, sparknet.parameters, rtol=1e-4, atol=1e-6)


def test_eamsgd_trains_with_nesterovs_momentum(folder: Path) -> None:
    options = {"moving_rate": 0.0, "center_rate": 1.0, "nesterov_momentum": 0.75}
    outcome = run_plan(make_plan("easgd", 1, folder, **options), folder)
    parameters, history = run_single(folder, type="Nesterov", momentum=0.75)
    assert torch.equal(outcome.parameters, parameters)
    assert torch.equal(outcome.history[0], history[0])


def test_warm_start_is_the_plain_solver_then_workers(folder: Path) -> None:
    plan = make_plan("sparknet", 2, folder, max_iter=60, warm_start=25, sync_interval=5)
    outcome = run_plan(plan, folder, snapshot=24)
    assert (outcome.result.iteration, outcome.result.samples) == (60, 300)
    assert [iteration for iteration, _ in outcome.recorder.tests] == [0, 20, 45, 60]
    ranks = {record["rank"]: record["worker_iteration"] for record in outcome.recorder.exchanges}
    assert ranks == {0: 30, 1: 30}
    assert outcome.recorder.exchanges[0]["worker_iteration"] == 13 + 5
    rest = make_plan("sparknet", 2, folder, max_iter=60, start_iteration=25, sync_interval=5)
    again = run_plan(rest, folder, change=lambda solver: solver.step(25))
    assert torch.equal(outcome.parameters, again.parameters)


def test_warm_start_may_be_all_or_be_stopped(folder: Path) -> None:
    whole = make_plan("sparknet", 2, folder, max_iter=20, warm_start=50)
    outcome = run_plan(whole, folder)
    assert torch.equal(outcome.parameters, run_single(folder, max_iter=20)[0])
    stopped = run_plan(whole, folder, poll=lambda: Action.STOP, test_initialization=False)
    assert (stopped.result.iteration, stopped.result.is_stopped_early) == (1, True)
    assert stopped.recorder.exchanges == []


def test_post_local_averages_at_every_iteration_first(folder: Path) -> None:
    plan = make_plan("sparknet", 2, folder, max_iter=40, post_local=8, sync_interval=5)
    records = run_plan(plan, folder).recorder.exchanges
    own = [record["worker_iteration"] for record in records if record["rank"] == 1]
    assert own == [1, 2, 3, 4, 5, 6, 7, 8, 13, 18, 20]
    assert plan.rounds == len(own)


def test_adaptive_period_grows_as_the_loss_falls(folder: Path) -> None:
    plan = make_plan("deepspark", 2, folder, max_iter=600, sync_interval=4, adaptive_period=True)
    outcome = run_plan(plan, folder)
    own = [r["worker_iteration"] for r in outcome.recorder.exchanges if r["rank"] == 0]
    periods = np.diff([0, *own])
    assert periods[0] == 4
    assert periods.sum() == 300
    assert 8 < periods[-2] <= periods.max() <= 40


OPTIONS: dict[str, dict[str, Any]] = {
    "diloco": {"sync_interval": 10},
    "downpour": {"n_push": 3, "n_fetch": 2},
}
CASES = [(name, OPTIONS.get(name, {})) for name in strategy_names()] + [
    ("easgd", {"asynchronous": True, "nesterov_momentum": 0.5}),
    ("downpour", {"server_adagrad": 0.01, "n_push": 5, "n_fetch": 5}),
    ("deepspark", {"adaptive_period": True, "moving_rate": 0.3, "sync_interval": 3}),
    ("sparknet", {"warm_start": 30, "post_local": 20}),
]


@pytest.mark.parametrize(("strategy", "options"), CASES)
def test_every_strategy_learns(folder: Path, strategy: str, options: dict[str, Any]) -> None:
    plan = make_plan(strategy, 3, folder, max_iter=900, **options)
    outcome = run_plan(plan, folder, momentum=0.5, base_lr=0.0001)
    losses = [r["loss"] for r in outcome.recorder.exchanges if r["loss"] is not None]
    assert np.mean(losses[-6:]) < 0.3 < 1 < np.mean(losses[:3])
    assert outcome.recorder.tests[-1][1] > 0.9 > outcome.recorder.tests[0][1]


@pytest.mark.parametrize("strategy", strategy_names())
def test_runs_repeat_bit_for_bit(folder: Path, strategy: str) -> None:
    plan = make_plan(strategy, 3, folder, max_iter=100)
    first, second = (run_plan(plan, folder, DROPOUT) for _ in range(2))
    assert torch.equal(first.parameters, second.parameters)
    assert first.recorder.tests == second.recorder.tests
    assert first.result.iteration == second.result.iteration == 100


def resumed(
    folder: Path, strategy: str, options: dict[str, Any], start: int, end: int = 60
) -> Outcome:
    settings = {"lr_policy": "inv", "gamma": 0.1, "power": 0.75}
    run_plan(make_plan(strategy, 2, folder, max_iter=start, **options), folder, **settings)
    rest = make_plan(strategy, 2, folder, max_iter=end, start_iteration=start, **options)
    state = folder / f"tiny_iter_{start}.solverstate"
    return run_plan(rest, folder, change=lambda solver: solver.restore(state), **settings)


def test_sync_goes_on_from_a_snapshot_as_if_it_had_never_stopped(folder: Path) -> None:
    settings = {"lr_policy": "inv", "gamma": 0.1, "power": 0.75}
    whole = run_plan(make_plan("sync", 2, folder, max_iter=60), folder, **settings)
    outcome = resumed(folder, "sync", {}, 20)
    assert torch.equal(outcome.parameters, whole.parameters)
    assert torch.equal(outcome.history[0], whole.history[0])


@pytest.mark.parametrize("strategy", strategy_names())
def test_every_strategy_resumes_where_shares_are_uneven(folder: Path, strategy: str) -> None:
    outcome = resumed(folder, strategy, OPTIONS.get(strategy, {}), 21)
    assert (outcome.result.iteration, outcome.result.samples) == (60, 300)
    last = {r["rank"]: r["worker_iteration"] for r in outcome.recorder.exchanges}
    assert last == {0: 30, 1: 30}


def test_sync_workers_stay_the_same_where_shares_are_uneven(folder: Path) -> None:
    """Rank 0, which rests in the last iteration, is the one that publishes."""
    outcome = resumed(folder, "sync", {}, 21)
    rates = {r["rank"]: [] for r in outcome.recorder.exchanges}
    for record in outcome.recorder.exchanges:
        rates[record["rank"]].append(record["lr"])
    assert rates[0][:-1] == rates[1][:-1]
    assert len(rates[0]) == len(rates[1]) == 20
    shorter = resumed(folder, "sync", {}, 21, end=59)
    assert not torch.equal(outcome.parameters, shorter.parameters)


def test_elastic_run_tests_and_saves_the_centre(folder: Path) -> None:
    """With α = 0 and β = 0 the centre stays where it was, whatever the workers do."""
    plan = make_plan("easgd", 2, folder, moving_rate=0.0)
    outcome = run_plan(plan, folder)
    start = lone_worker(folder, 0, 2)
    assert torch.equal(outcome.parameters, start.net.flat.data)
    assert outcome.recorder.exchanges[-1]["loss"] < outcome.recorder.exchanges[0]["loss"]
    assert len({accuracy for _, accuracy in outcome.recorder.tests}) == 1


def test_staleness_of_turns_is_that_of_all_others(folder: Path) -> None:
    outcome = run_plan(make_plan("asysg", 3, folder, max_iter=30, max_staleness=2), folder)
    stale = [record["staleness"] for record in outcome.recorder.exchanges]
    assert max(stale) == 2


def test_a_solver_that_eamsgd_cannot_be_is_refused(folder: Path) -> None:
    plan = make_plan("easgd", 2, folder, nesterov_momentum=0.5)
    with pytest.raises(UsageError, match="received RMSProp"):
        run_plan(plan, folder, type="RMSProp", momentum=0.0, rms_decay=0.9)
