"""Scoring test nets.

Source: caffe/src/caffe/solver.cpp, Solver::Test.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prototxt_parser.net import Net
from solvers.feed import Feed
from solvers.log_format import output_lines

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TestNet:
    """A test net with its data.

    Attributes:
        net: Built for the TEST phase, sharing the train net's parameters.
        feed: Its batches; the position persists between tests.
        iterations: Batches per test (`test_iter`).
    """

    __test__ = False  # not a test case, whatever its name

    net: Net
    feed: Feed
    iterations: int


@torch.no_grad()
def score(
    test: TestNet, *, with_loss: bool, interrupted: Callable[[], bool]
) -> dict[str, float] | None:
    """Run `test.iterations` batches, log and return the mean of every output element.

    Args:
        test: The net.
        with_loss: Log and return the total loss too, as `loss (total)`.
        interrupted: Asked before every batch; True ends the test.

    Returns:
        Means by output name; elements of a vector output are called `name[0]`, `name[1]`, …
        None if interrupted.
    """
    sums: dict[str, Tensor] = {}
    loss = 0.0
    for _ in range(test.iterations):
        if interrupted():
            return None
        outputs = test.net(test.feed.next())
        loss += float(test.net.loss)
        for name, value in outputs.items():
            flat = value.detach().double().reshape(-1)
            sums[name] = sums[name] + flat if name in sums else flat
    if with_loss:
        logger.info("Test loss: %g", loss / test.iterations)
    means = {name: total / test.iterations for name, total in sums.items()}
    for line in output_lines("Test", means, test.net.loss_weights):
        logger.info("%s", line)
    total_loss = {"loss (total)": loss / test.iterations} if with_loss else {}
    return total_loss | dict(_elements(means))


def _elements(outputs: Mapping[str, Tensor]) -> Iterator[tuple[str, float]]:
    for name, values in outputs.items():
        for index, value in enumerate(values.tolist()):
            yield (name if values.numel() == 1 else f"{name}[{index}]"), value
