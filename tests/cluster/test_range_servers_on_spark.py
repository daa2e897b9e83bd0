"""A centre that processes beside the driver serve to Spark's workers."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from chaos import own_servers
from tiny_task import BATCH_NORM, make_plan, run_plan

pytestmark = pytest.mark.cluster


def servers(*, serving: bool = False) -> list[psutil.Process]:
    """Return the processes that serve ranges, or will."""
    found = []
    for child in own_servers():
        with suppress(psutil.Error):  # it has just ended
            states = [each.status for each in child.net_connections("tcp")]
            if not serving or psutil.CONN_LISTEN in states:
                found.append(child)
    return found


@pytest.mark.parametrize(
    ("strategy", "options", "extra", "encryption"),
    [
        ("deepspark", {"sync_interval": 3, "moving_rate": 0.3}, BATCH_NORM, "on"),
        ("downpour", {"n_push": 3, "n_fetch": 2, "server_adagrad": 0.01}, "", "off"),
        ("asysg", {"max_staleness": 1}, "", "off"),
    ],
)
def test_strategies_learn_from_ranges(
    folder: Path, strategy: str, options: dict[str, Any], extra: str, encryption: str
) -> None:
    plan = make_plan(
        strategy, 2, folder, max_iter=600, master=None, servers=2, encryption=encryption, **options
    )
    outcome = run_plan(plan, folder, extra, momentum=0.5, base_lr=0.01 if extra else 0.0001)
    assert (outcome.result.iteration, outcome.result.samples) == (600, 3000)
    assert outcome.recorder.tests[-1][1] > 0.7 > outcome.recorder.tests[0][1]
    if strategy == "asysg":
        assert max(record["staleness"] for record in outcome.recorder.exchanges) <= 1
    assert not servers()


def test_a_run_goes_on_while_its_servers_are_killed(folder: Path) -> None:
    is_over, killed = threading.Event(), []

    def kill() -> None:
        while not is_over.is_set() and len(killed) < 5:
            for victim in servers(serving=True)[:1]:
                victim.kill()
                killed.append(victim.pid)
            time.sleep(1)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        options = {"sync_interval": 3, "moving_rate": 0.3}
        plan = make_plan("deepspark", 2, folder, max_iter=9000, master=None, servers=2, **options)
        outcome = run_plan(plan, folder, test_interval=3000, momentum=0.5, base_lr=0.0001)
    finally:
        is_over.set()
        killer.join()
    assert killed
    assert outcome.result.iteration == 9000
    assert outcome.parameters.isfinite().all()
    assert outcome.recorder.tests[-1][1] > 0.8
    assert not servers()
