"""Every strategy on `local[2]`, in processes of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from prototxt_parser.text import print_text
from tiny_task import make_plan, run_plan, tiny_net, tiny_param
from trainer.errors import TrainerError
from trainer.parameter_server.service import Service
from trainer.plan import IN_PROCESS
from trainer.strategies import get_strategy, strategy_names

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
OPTIONS: dict[str, dict[str, Any]] = {
    "diloco": {"sync_interval": 10},
    "downpour": {"n_push": 3, "n_fetch": 2},
    "deepspark": {"adaptive_period": True, "sync_interval": 3, "moving_rate": 0.3},
    "sparknet": {"warm_start": 30, "post_local": 20},
    "asysg": {"max_staleness": 1},
}
SYNCHRONOUS = [
    name for name in strategy_names() if getattr(get_strategy(name), "is_synchronous", True)
]


@pytest.mark.parametrize("strategy", strategy_names())
def test_every_strategy_learns(folder: Path, strategy: str) -> None:
    plan = make_plan(strategy, 2, folder, max_iter=600, master=None, **OPTIONS.get(strategy, {}))
    outcome = run_plan(plan, folder, momentum=0.5, base_lr=0.0001)
    assert (outcome.result.iteration, outcome.result.samples) == (600, 3000)
    assert outcome.recorder.tests[-1][1] > 0.8 > outcome.recorder.tests[0][1]
    if strategy == "asysg":
        assert max(record["staleness"] for record in outcome.recorder.exchanges) <= 1


@pytest.mark.parametrize("strategy", SYNCHRONOUS)
def test_synchronous_strategy_is_its_oracle(folder: Path, strategy: str) -> None:
    options = OPTIONS.get(strategy, {})
    real, oracle = (
        run_plan(make_plan(strategy, 2, folder, max_iter=83, master=master, **options), folder)
        for master in (None, IN_PROCESS)
    )
    torch.testing.assert_close(real.parameters, oracle.parameters, rtol=0, atol=1e-6)
    assert real.recorder.tests == oracle.recorder.tests


def test_easgd_at_each_workers_own_time(folder: Path) -> None:
    options = {"asynchronous": True, "nesterov_momentum": 0.5}
    plan = make_plan("easgd", 2, folder, max_iter=600, master=None, **options)
    outcome = run_plan(plan, folder, base_lr=0.0001)
    assert outcome.recorder.tests[-1][1] > 0.8 > outcome.recorder.tests[0][1]


def test_hogwild_on_another_host_is_refused_in_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of another host is one that is not there."""
    answer = {"path": "/dev/shm/torrefy-of-another-host", "size": 7, "home": "alpha"}
    plan = make_plan("hogwild", 2, folder, max_iter=10**6, master=None)
    monkeypatch.setattr(Service, "_shared", lambda self, command: answer)
    with pytest.raises(
        TrainerError, match=r"^worker [01] on .* share the memory of one host, alpha"
    ):
        run_plan(plan, folder, test_iter=[])


def test_a_strategy_of_the_users_own_travels(folder: Path) -> None:
    page = (ROOT / "docs/strategies.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert example is not None
    first = "        self._mean = replica"
    warning = "        logging.warning('partial after %d', replica.iteration)\n"
    assert first in example[1]
    text = f"import logging\n{example[1].replace(first, warning + first)}"
    (folder / "partial.py").write_text(text)
    (folder / "tiny.prototxt").write_text(print_text(tiny_net().param))
    param = tiny_param(Path("out"), net="tiny.prototxt", max_iter=400)
    (folder / "tiny_solver.prototxt").write_text(print_text(param))
    code = "import sys; from trainer.cli import train_main; sys.exit(train_main(sys.argv[1:]))"
    flags = ["--strategy", "partial", "--part", "0.3", "--layer-module", "partial.py"]
    flags += ["--solver", "tiny_solver.prototxt", "--out", "out", "--workers", "2"]
    result = subprocess.run(
        [sys.executable, "-c", code, *flags],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert (folder / "out/tiny_iter_400.caffemodel").exists()
    assert "worker  host  starts  iterations  exchanges" in result.stdout
    for rank in range(2):  # what workers log reaches the driver's log
        assert f"[worker {rank}] partial after 10" in (folder / "out/tiny_train.log").read_text()
