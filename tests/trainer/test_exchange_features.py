"""Overlapped and half-width exchanges, workers in turns: what they compute, who refuses them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_task import BATCH_NORM, lone_worker, make_plan, run_plan
from trainer.errors import UsageError
from trainer.overlap import Overlap
from trainer.strategies import Replica
from trainer.strategies.arithmetic import Layout

OPTIONS: dict[str, dict[str, Any]] = {
    "deepspark": {"sync_interval": 3, "moving_rate": 0.3},
    "easgd": {"asynchronous": True, "sync_interval": 4},
    "downpour": {"n_push": 3, "n_fetch": 2},
}


@pytest.mark.parametrize("strategy", OPTIONS)
@pytest.mark.parametrize("features", [{"overlap": True}, {"exchange_dtype": "bfloat16"}])
def test_a_run_learns_all_the_same(folder: Path, strategy: str, features: dict[str, Any]) -> None:
    plan = make_plan(strategy, 2, folder, max_iter=600, **OPTIONS[strategy], **features)
    outcome = run_plan(plan, folder, momentum=0.5, base_lr=0.0001)
    assert (outcome.result.iteration, outcome.result.samples) == (600, 3000)
    assert outcome.recorder.tests[-1][1] > 0.8 > outcome.recorder.tests[0][1]


@pytest.mark.parametrize("extra", ["", BATCH_NORM])
def test_an_overlapped_pull_comes_an_iteration_late(folder: Path, extra: str) -> None:
    """DeepSpark by hand: x_k ← x_k + α (x̃ - x_k') one iteration after x_k' was sent."""
    settings = {"sync_interval": 3, "moving_rate": 0.25, "max_iter": 24}
    plan = make_plan("deepspark", 2, folder, overlap=True, **settings)
    outcome = run_plan(plan, folder, extra)

    workers = [lone_worker(folder, rank, 2, extra, max_iter=24) for rank in range(2)]
    layout = Layout.of(workers[0].net.flat.segments)
    center = workers[0].net.flat.data.clone()
    late = [torch.zeros_like(center) for _ in workers]
    for step in range(12):
        for worker, pull in zip(workers, late, strict=True):
            worker.advance(1)
            worker.net.flat.data.add_(pull)
            pull.zero_()
        if step % 3 == 2:
            for worker, pull in zip(workers, late, strict=True):
                own = worker.net.flat.data
                for part in layout.weights:
                    pull[part] = own[part].lerp(center[part], 0.25) - own[part]
                    center[part] = center[part].lerp(own[part], 0.25)
                for part in layout.statistics:
                    center[part] = center[part].lerp(own[part], 0.5)
    for worker in workers:
        worker.close()
    torch.testing.assert_close(outcome.parameters, center, rtol=0, atol=1e-6)


def test_half_the_bytes_go_out_and_come_in(folder: Path) -> None:
    sent = {}
    for dtype in ("float32", "float16"):
        plan = make_plan("deepspark", 2, folder, sync_interval=5, exchange_dtype=dtype)
        record = run_plan(plan, folder).recorder.exchanges[0]
        sent[dtype] = record["sent_bytes"]
    assert sent["float32"] == 2 * sent["float16"] > 0


def test_an_exchange_that_fails_is_told_when_it_is_settled() -> None:
    values = torch.zeros(7)
    replica = Replica(values, values.clone(), [], Layout((slice(0, 7),), ()), 3)
    overlap = Overlap()

    def fail(replica: Replica) -> int:
        raise OSError("no route")

    overlap.begin(replica, fail)
    with pytest.raises(OSError, match="no route"):
        overlap.settle(values)
    assert overlap.settle(values) == 0
    overlap.close()


@pytest.mark.parametrize(
    ("strategy", "features", "reason"),
    [
        ("sparknet", {"overlap": True}, "overlap: .* exchange together"),
        ("sync", {"exchange_dtype": "float16"}, "exchange_dtype: .* exchange together"),
        ("diloco", {"servers": 2}, "servers: .* exchange together"),
        ("hogwild", {"servers": 1}, "share the memory"),
        ("deepspark", {"servers": 2}, "servers: .* in-process starts none"),
        ("hogwild", {"exchange_dtype": "bfloat16"}, "share the memory"),
        ("asysg", {"overlap": True}, "staler than strategy asysg allows"),
    ],
)
def test_what_a_strategy_cannot_do_is_refused(
    folder: Path, strategy: str, features: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        run_plan(make_plan(strategy, 2, folder, **features), folder)
