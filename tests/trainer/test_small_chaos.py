"""Workers and servers that are killed and stopped many times a second; see also tests/cluster."""

import os
import secrets
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from chaos import KILL, STOP, TOKEN, Act, Chaos, Groups, Pace, own_servers
from chaos_checks import PAUSE, Journal, TellTests, install_parts
from process_cluster import ProcessCluster
from tiny_task import KeepTests, Outcome, make_plan, open_solver, run_plan, tiny_net, tiny_param
from trainer.coordinator import run_distributed
from trainer.extensions import Extensions

SEED = int(os.environ.get("TORREFY_CHAOS_SEED", secrets.randbits(31)))
pytestmark = pytest.mark.slow

MAX_ITER, PAUSE_S, DEADLINE_S = 2000, 0.001, 200.0
PACE = Pace(gap_s=(0.01, 0.15), stop_s=(0.01, 0.2), recovery=10)
WORKERS: dict[Act, float] = {(KILL, "worker"): 3, (STOP, "worker"): 2}
SERVERS: dict[Act, float] = {(KILL, "server"): 1, (STOP, "server"): 2}


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch) -> Extensions:
    return install_parts(monkeypatch)


@pytest.fixture
def flag(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that is there while chaos goes on."""
    monkeypatch.setenv(TOKEN, str(folder / "chaos"))
    (folder / "chaos").write_text(str(PAUSE_S))
    return folder / "chaos"


def run_in_chaos(
    strategy: str, share: int, folder: Path, flag: Path, extensions: Extensions, **settings: Any
) -> Outcome:
    """Run a plan while its processes are killed and stopped."""
    acts: Mapping[Act, float] = WORKERS | (SERVERS if settings.get("servers") else {})
    common = {"extensions": extensions, "task_attempts": 50, "wait_timeout_s": 60.0}
    plan = make_plan(
        strategy, 2, folder, **common, **settings, max_iter=MAX_ITER, master="processes"
    )
    net, journal, cluster = tiny_net(PAUSE), Journal(), ProcessCluster(plan)
    rate = {"base_lr": 1e-12} if strategy == "counting" else {}
    solver = open_solver(folder, tiny_param(folder, max_iter=MAX_ITER, **rate), net)
    solver.callbacks += [KeepTests(journal), TellTests(journal)]
    if strategy == "counting":
        solver.net.flat.data.zero_()

    def find() -> Groups:
        return {"worker": cluster.workers, "server": [[each] for each in own_servers()]}

    chaos = Chaos(find, acts, share, SEED, PACE, lambda: journal.reached, DEADLINE_S)

    print(f"TORREFY_CHAOS_SEED={SEED}")
    try:
        with chaos:
            run = run_distributed(
                solver,
                plan,
                observer=journal,
                net=net,
                poll=partial(chaos.poll, flag),
                cluster=cluster,
            )
        assert len(chaos.events) == share
        assert (run.iteration, run.is_stopped_early) == (MAX_ITER, False)
        assert solver.net.flat.data.isfinite().all()
        assert not [path for path in chaos.shared if path.exists()]
        if not plan.overlap:  # an exchange under way has been told, and may be lost
            journal.check()
        return Outcome(solver.net.flat.data.clone(), [], run, journal)
    finally:
        solver.close()


def test_each_push_counts_once(folder: Path, flag: Path, extensions: Extensions) -> None:
    outcome = run_in_chaos("counting", 20, folder, flag, extensions, sync_interval=1)
    assert [worker.iterations for worker in outcome.result.workers] == [MAX_ITER // 2] * 2
    assert outcome.parameters.unique().tolist() == [MAX_ITER]


@pytest.mark.parametrize("encryption", ["off", "on"])
def test_each_push_counts_once_where_ranges_are_served(
    folder: Path,
    flag: Path,
    extensions: Extensions,
    caplog: pytest.LogCaptureFixture,
    encryption: str,
) -> None:
    settings = {"sync_interval": 1, "servers": 2, "encryption": encryption}
    outcome = run_in_chaos("counting", 40, folder, flag, extensions, **settings)
    # A push that a lost worker had brought to a range, and not counted, is made again; one that a
    # lost server was at is lost, or done in part.
    lost_workers = sum(worker.attempts - 1 for worker in outcome.result.workers)
    lost_servers = caplog.text.count("another one takes over")
    counts = outcome.parameters.unique().tolist()
    assert MAX_ITER - lost_servers <= counts[0] <= counts[-1] <= MAX_ITER + lost_workers


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("sparknet", {"sync_interval": 5}),
        ("sync", {}),
        ("easgd", {"sync_interval": 3}),
        ("diloco", {"sync_interval": 7}),
    ],
)
def test_rounds_that_are_lost_are_done_again(
    folder: Path, flag: Path, extensions: Extensions, strategy: str, options: dict[str, Any]
) -> None:
    outcome = run_in_chaos(strategy, 15, folder, flag, extensions, **options)
    undisturbed = run_plan(
        make_plan(strategy, 2, folder, max_iter=MAX_ITER, **options), folder, PAUSE
    )
    assert torch.equal(outcome.parameters, undisturbed.parameters)
    assert dict(outcome.recorder.tests) == dict(undisturbed.recorder.tests)


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("asysg", {"max_staleness": 1}),
        ("asysg", {"max_staleness": 1, "servers": 2}),
        ("deepspark", {"overlap": True, "exchange_dtype": "bfloat16", "sync_interval": 2}),
        ("deepspark", {"overlap": True, "servers": 2, "sync_interval": 2, "lock_free": True}),
        ("downpour", {"n_push": 2, "n_fetch": 4, "servers": 2, "server_adagrad": 0.001}),
        ("easgd", {"asynchronous": True, "sync_interval": 2}),
        ("hogwild", {}),
    ],
)
def test_workers_with_a_centre_get_to_the_end(
    folder: Path, flag: Path, extensions: Extensions, strategy: str, options: dict[str, Any]
) -> None:
    outcome = run_in_chaos(strategy, 25, folder, flag, extensions, **options)
    assert [worker.iterations for worker in outcome.result.workers] == [MAX_ITER // 2] * 2
