"""Whole runs with workers in turn: the identities of the strategies, and the driver's duties."""

import logging
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lmdb
import pytest
import torch

from prototxt_parser.proto import caffe_pb2
from solvers import Action, Solver
from tiny_task import (
    BATCH_NORM,
    DROPOUT,
    SEED,
    Recorder,
    lone_worker,
    make_plan,
    run_plan,
    run_single,
    tiny_net,
    tiny_param,
    write_data,
)
from trainer.cluster.in_process import InProcessCluster
from trainer.data.feed import open_feed
from trainer.errors import TrainerError
from trainer.strategies import strategy_names


@pytest.mark.parametrize("extra", ["", DROPOUT, BATCH_NORM])
@pytest.mark.parametrize("settings", [{}, {"lr_policy": "inv", "gamma": 0.1, "power": 0.75}])
def test_one_synchronous_worker_is_the_plain_solver_bit_for_bit(
    folder: Path, extra: str, settings: dict[str, object]
) -> None:
    parameters, history = run_single(folder, extra, max_iter=43, iter_size=2, **settings)
    plan = make_plan("sparknet", 1, folder, max_iter=43)
    outcome = run_plan(plan, folder, extra, iter_size=2, **settings)
    assert torch.equal(outcome.parameters, parameters)
    assert torch.equal(outcome.history[0], history[0])


@pytest.mark.parametrize("extra", ["", DROPOUT, BATCH_NORM])
def test_one_round_is_the_mean_of_workers_that_know_nothing_of_each_other(
    folder: Path, extra: str
) -> None:
    plan = make_plan("sparknet", 3, folder, max_iter=12, sync_interval=4)
    outcome = run_plan(plan, folder, extra)
    total = torch.zeros_like(outcome.parameters)
    for rank in range(3):
        solver = lone_worker(folder, rank, 3, extra)
        solver.step(4)
        total += solver.net.flat.data
        if rank == 0:
            assert torch.equal(outcome.history[0], solver.history[0])
        solver.close()
    assert torch.equal(outcome.parameters, total / 3)


def test_averaging_every_iteration_is_the_mean_gradient_step(folder: Path) -> None:
    settings = {"momentum": 0.0, "weight_decay": 0.01}
    plan = make_plan("sparknet", 2, folder, max_iter=16, sync_interval=1)
    outcome = run_plan(plan, folder, **settings)
    workers = [lone_worker(folder, rank, 2, **settings) for rank in range(2)]
    parameters = workers[0].net.flat.data.clone()
    for _ in range(8):
        gradients = []
        for worker in workers:
            worker.net.flat.data.copy_(parameters)
            worker.forward_backward()
            gradients.append(worker.net.flat.grad + 0.01 * parameters)
        parameters -= workers[0].param.base_lr * sum(gradients) / 2
    for worker in workers:
        worker.close()
    torch.testing.assert_close(outcome.parameters, parameters, rtol=1e-5, atol=1e-7)


def test_rate_zero_leaves_workers_and_centre_alone(folder: Path) -> None:
    plan = make_plan("deepspark", 2, folder, max_iter=40, moving_rate=0.0)
    outcome = run_plan(plan, folder)
    for rank in range(2):
        solver = lone_worker(folder, rank, 2)
        if rank == 0:
            assert torch.equal(outcome.parameters, solver.net.flat.data)
        for number in range(2):
            losses = []
            for _ in range(10):
                solver.step(1)
                losses.append(solver.smoothed_loss)
            records = [r for r in outcome.recorder.exchanges if r["rank"] == rank]
            assert records[number]["loss"] == sum(losses) / 10
        solver.close()


def test_first_elastic_exchange_is_that_of_the_formula(folder: Path) -> None:
    """Rank 0 exchanges first; rank 1 then meets the centre that rank 0 has moved."""
    plan = make_plan("deepspark", 2, folder, max_iter=8, sync_interval=4, moving_rate=0.25)
    outcome = run_plan(plan, folder)
    workers = [lone_worker(folder, rank, 2) for rank in range(2)]
    center = workers[0].net.flat.data.clone()
    for worker in workers:
        worker.step(4)
        center = 0.75 * center + 0.25 * worker.net.flat.data
        worker.close()
    torch.testing.assert_close(outcome.parameters, center, rtol=1e-6, atol=1e-7)
    assert [record["staleness"] for record in outcome.recorder.exchanges] == [0, 1]


def test_statistics_of_the_centre_are_averaged_and_not_pulled(folder: Path) -> None:
    plan = make_plan("deepspark", 2, folder, max_iter=4, sync_interval=2, moving_rate=0.0)
    outcome = run_plan(plan, folder, BATCH_NORM)
    workers = [lone_worker(folder, rank, 2, BATCH_NORM) for rank in range(2)]
    segments = workers[0].net.flat.segments
    statistics = torch.cat(
        [torch.arange(s.offset, s.offset + s.size) for s in segments if s.is_statistic]
    )
    center = workers[0].net.flat.data.clone()
    for worker in workers:
        worker.step(2)
        moved = (center[statistics] + worker.net.flat.data[statistics]) / 2
        center[statistics] = moved
        worker.close()
    torch.testing.assert_close(outcome.parameters, center, rtol=1e-6, atol=1e-7)
    assert statistics.numel() == 7 + 7 + 1


@pytest.mark.parametrize(
    "settings", [{}, {"moving_rate": 0.3}, {"moving_rate": 0.3, "lock_free": True}]
)
def test_runs_learn(folder: Path, settings: dict[str, object]) -> None:
    strategy = "deepspark" if settings else "sparknet"
    outcome = run_plan(make_plan(strategy, 3, folder, max_iter=600, **settings), folder)
    losses = [record["loss"] for record in outcome.recorder.exchanges]
    assert losses[-1] < losses[0] / 4
    assert outcome.recorder.tests[-1][1] > 0.9 > outcome.recorder.tests[0][1]


def test_uneven_shares_are_all_trained_and_averaged(folder: Path) -> None:
    outcome = run_plan(make_plan("sparknet", 3, folder, max_iter=32), folder)
    assert (outcome.result.iteration, outcome.result.samples) == (32, 160)
    last = {record["rank"]: record for record in outcome.recorder.exchanges}
    assert [last[rank]["worker_iteration"] for rank in range(3)] == [11, 11, 10]
    assert last[2]["loss"] is None
    assert [last[rank]["iteration"] for rank in range(3)] == [32, 32, 30]
    assert [last[rank]["samples"] for rank in range(3)] == [160, 160, 150]


def test_per_worker_counts_the_iterations_of_each(folder: Path) -> None:
    plan = make_plan("sparknet", 2, folder, max_iter=40, per_worker=True)
    outcome = run_plan(plan, folder, lr_policy="step", gamma=0.1, stepsize=25)
    assert (outcome.result.iteration, outcome.result.samples) == (40, 400)
    assert [iteration for iteration, _ in outcome.recorder.tests] == [0, 20, 40]
    rates = [record["lr"] for record in outcome.recorder.exchanges if record["rank"] == 1]
    assert rates == pytest.approx([3e-5, 3e-5, 3e-6, 3e-6])


def test_rate_follows_the_global_count(folder: Path) -> None:
    plan = make_plan("deepspark", 2, folder, max_iter=80)
    settings = {"lr_policy": "multistep", "gamma": 0.1, "stepvalue": [40, 60]}
    outcome = run_plan(plan, folder, **settings)
    rates = [record["lr"] for record in outcome.recorder.exchanges if record["rank"] == 0]
    assert rates == pytest.approx([3e-5, 3e-6, 3e-7, 3e-7])


@pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])
def test_tests_and_snapshots_come_at_the_multiples_that_exchanges_pass(
    folder: Path, strategy: str
) -> None:
    plan = make_plan(strategy, 2, folder, max_iter=75, sync_interval=5)
    outcome = run_plan(plan, folder, snapshot=25)
    step = 10 if strategy == "sparknet" else 5
    passed = [-(-multiple // step) * step for multiple in (25, 50)]
    assert [iteration for iteration, _ in outcome.recorder.tests] == [0, 20, 40, 60]
    assert snapshots(folder) == [*passed, 75]


def snapshots(folder: Path) -> list[int]:
    return sorted(int(path.stem.split("_")[-1]) for path in folder.glob("tiny_iter_*.solverstate"))


@pytest.mark.parametrize(
    ("settings", "tests", "saved"),
    [
        ({"test_initialization": False}, [20, 40], [40]),
        ({"snapshot_after_train": False}, [0, 20, 40], []),
        ({"snapshot": 40}, [0, 20, 40], [40]),
        ({"test_interval": 30}, [0, 40], [40]),
        ({"test_iter": []}, [], [40]),
    ],
)
def test_start_and_end_are_caffes(
    folder: Path, settings: dict[str, object], tests: list[int], saved: list[int]
) -> None:
    outcome = run_plan(make_plan("sparknet", 2, folder), folder, **settings)
    assert [iteration for iteration, _ in outcome.recorder.tests] == tests
    assert snapshots(folder) == saved


def resume(folder: Path, iteration: int) -> Callable[[Solver], None]:
    return lambda solver: solver.restore(folder / f"tiny_iter_{iteration}.solverstate")


@pytest.mark.parametrize("per_worker", [False, True])
def test_resumed_run_goes_on_in_the_data(folder: Path, per_worker: bool) -> None:
    """With the momentum averaged, a snapshot holds all there is: the halves make up the whole."""
    settings = {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [14, 15, 30]}
    options = {"momentum_at_sync": "average", "per_worker": per_worker, "sync_interval": 5}
    whole = run_plan(make_plan("sparknet", 2, folder, max_iter=40, **options), folder, **settings)
    run_plan(make_plan("sparknet", 2, folder, max_iter=20, **options), folder, **settings)
    rest = make_plan("sparknet", 2, folder, max_iter=40, start_iteration=20, **options)
    outcome = run_plan(rest, folder, change=resume(folder, 20), **settings)
    assert torch.equal(outcome.parameters, whole.parameters)
    assert [iteration for iteration, _ in outcome.recorder.tests] == [20, 40]
    assert outcome.recorder.tests[-1] == whole.recorder.tests[-1]


def test_nothing_left_to_do_changes_nothing(folder: Path) -> None:
    whole = run_plan(make_plan("deepspark", 2, folder), folder)
    plan = make_plan("deepspark", 2, folder, start_iteration=40)
    saved = (folder / "tiny_iter_40.caffemodel").stat().st_mtime_ns
    again = run_plan(plan, folder, change=resume(folder, 40), snapshot=20)
    assert (folder / "tiny_iter_40.caffemodel").stat().st_mtime_ns == saved
    assert torch.equal(again.parameters, whole.parameters)
    assert (again.recorder.exchanges, again.recorder.tests) == ([], [])


def once_exchanged(recorder: Recorder, action: Action) -> Callable[[], Action]:
    """Return a poll that asks for `action` once, when some exchanges have been heard of."""
    pending = [action]

    def poll() -> Action:
        return pending.pop() if pending and len(recorder.exchanges) >= 4 else Action.NONE

    return poll


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers report whenever they can, and not once a second."""
    monkeypatch.setattr("trainer.worker._PROGRESS_S", 0.0)
    monkeypatch.setattr("trainer.heartbeat._SOON_S", 0.0)


@pytest.mark.usefixtures("talkative")
@pytest.mark.parametrize("strategy", strategy_names())
def test_stop_ends_all_workers_with_a_snapshot(folder: Path, strategy: str) -> None:
    recorder = Recorder()
    plan = make_plan(strategy, 3, folder, max_iter=10**6)
    poll = once_exchanged(recorder, Action.STOP)
    outcome = run_plan(plan, folder, poll=poll, recorder=recorder, test_interval=10**5)
    assert outcome.result.is_stopped_early
    assert 0 < outcome.result.iteration < plan.max_iter
    assert snapshots(folder) == [outcome.result.iteration]
    assert outcome.recorder.tests[1:] == []


@pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])
def test_stop_during_the_first_test_trains_nothing(folder: Path, strategy: str) -> None:
    plan = make_plan(strategy, 2, folder, max_iter=10**6)
    outcome = run_plan(plan, folder, poll=lambda: Action.STOP)
    assert (outcome.result.iteration, outcome.recorder.exchanges) == (0, [])
    assert outcome.result.is_stopped_early


@pytest.mark.usefixtures("talkative")
@pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])
def test_snapshot_on_request(folder: Path, strategy: str) -> None:
    recorder = Recorder()
    plan = make_plan(strategy, 2, folder, max_iter=3000)
    poll = once_exchanged(recorder, Action.SNAPSHOT)
    run_plan(plan, folder, poll=poll, recorder=recorder, test_iter=[])
    early, last = snapshots(folder)
    assert 0 < early < last == 3000


def test_snapshot_of_the_centre_holds_no_momentum(folder: Path) -> None:
    outcome = run_plan(make_plan("deepspark", 2, folder), folder)
    assert not outcome.history[0].any()
    assert run_plan(make_plan("sparknet", 2, folder), folder).history[0].any()


def test_test_nets_see_the_test_phase_and_the_final_average(folder: Path) -> None:
    plan = make_plan("sparknet", 2, folder, max_iter=400)
    outcome = run_plan(plan, folder, DROPOUT)
    feed = partial(open_feed, seed=SEED, data_dir=folder)
    solver = Solver(tiny_param(folder), feed, net=tiny_net(DROPOUT), seed=SEED)
    solver.net.flat.data.copy_(outcome.parameters)
    assert outcome.recorder.tests[-1] == (400, solver.test_all()[0]["accuracy"])
    solver.close()


def damage(folder: Path, entry: int) -> Path:
    """Return a copy of the task whose training entry number `entry` is garbage."""
    broken = folder / "broken"
    write_data(broken)
    with lmdb.open(str(broken / "train_lmdb"), lock=False) as env, env.begin(write=True) as txn:
        txn.put(f"{entry:05d}".encode(), caffe_pb2.Datum(channels=9, data=b"x").SerializeToString())
    return broken


@pytest.mark.parametrize("strategy", strategy_names())
@pytest.mark.parametrize(("entry", "rank"), [(25, 1), (50, 2)])
def test_worker_that_fails_in_mid_round_ends_the_run_and_is_named(
    folder: Path, strategy: str, entry: int, rank: int
) -> None:
    broken = damage(folder, entry)
    plan = make_plan(strategy, 3, broken, max_iter=10**6)
    with pytest.raises(TrainerError, match=rf"^worker {rank} on .*train_lmdb, key b'000{entry}'"):
        run_plan(plan, broken, test_interval=10**6)


def test_diverging_worker_is_named(folder: Path) -> None:
    plan = make_plan("deepspark", 2, folder, max_iter=1000)
    with pytest.raises(
        TrainerError, match=r"^worker 0 on .*training diverges; use a lower base_lr"
    ):
        run_plan(plan, folder, base_lr=1e30)


def test_error_in_the_driver_ends_the_workers(folder: Path) -> None:
    plan = make_plan("sparknet", 2, folder, max_iter=10**6)

    def poll() -> Action:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, folder, poll=poll, test_iter=[])
    assert not [t for t in threading.enumerate() if t.name.startswith("worker ")]


def test_threads_are_set_for_the_run_and_put_back() -> None:
    before = torch.get_num_threads()
    with InProcessCluster(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_log_has_caffes_lines(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer")
    run_plan(make_plan("sparknet", 2, folder, max_iter=80), folder, display=40)
    lines = [r.getMessage() for r in caplog.records if r.name == "trainer.tally"]
    pattern = r"Iteration (40|80) \([\d.e+]+ iter/s, [\d.e-]+s/40 iters\), loss = [\d.e-]+"
    assert len(lines) == 4
    assert all(re.fullmatch(pattern, line) for line in lines[::2])
    assert lines[1::2] == ["Iteration 40, lr = 3e-05", "Iteration 80, lr = 3e-05"]


def test_settled_rate_is_that_of_an_uninterrupted_run(folder: Path) -> None:
    settings = {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [3, 4, 9]}
    solver = lone_worker(folder, 0, 1, **settings)
    solver.iteration = 6
    solver.settle_rate()
    assert solver.current_step == 2
    solver.close()
