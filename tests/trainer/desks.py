"""Desks with a small centre, for the tests of what workers and driver say to each other."""

import socket

import torch

from trainer.parameter_server.center_file import CenterFile
from trainer.parameter_server.desk import Depository, Desk, Given
from trainer.plan import DistributedPlan, Milestones
from trainer.strategies import CenterSettings, DeepSparkOptions
from trainer.strategies.arithmetic import Layout

SIZE = 7
CENTER = CenterSettings()


def make_desk(
    wait_timeout_s: float = 20.0,
    size: int = SIZE,
    settings: CenterSettings = CENTER,
    file: CenterFile | None = None,
    depository: Depository | None = None,
) -> Desk:
    """Return the desk of two workers, whose centre begins as 0, 1, 2, … with a history of ones."""
    plan = DistributedPlan(
        "deepspark", DeepSparkOptions(), 2, max_iter=100, wait_timeout_s=wait_timeout_s
    )
    layout = Layout((slice(0, size),), ())
    given = Given(torch.arange(size).float(), [torch.ones(size)], layout, [0, 0])
    return Desk(plan, Milestones(20, 0), given, settings, depository, file)


def has_ipv6() -> bool:
    """Return whether this machine has an IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
