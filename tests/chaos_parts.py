"""What the runs of the chaos test train with: a layer that slows them down, a strategy that counts.

Imported by the driver and by every worker, as a user's module; see `Extensions`.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import torch

from prototxt_parser import Layer, register_layer
from trainer.links import CenterLink, Move
from trainer.strategies import LocalOptions, Options, Replica, Strategy, register_strategy

# Names a file, there while chaos goes on, with the seconds of a pause in it. Every process of a run
# has it in its environment, and no other process.
TOKEN = "TORREFY_CHAOS"


@register_layer("Pause")
class Pause(Layer):
    """Takes its time while chaos goes on, so that a run lasts as long and then ends soon."""

    def top_shapes(self, bottoms):
        return list(bottoms)

    def forward(self, *bottoms):
        with suppress(FileNotFoundError):
            time.sleep(float(Path(os.environ[TOKEN]).read_text()))
        return bottoms[0] * 1


@register_strategy("counting")
class Counting(Strategy[CenterLink, LocalOptions]):
    """Every value of x̃ gains 1 with every iteration that is brought in."""

    is_synchronous = False
    options_type: ClassVar[type[Options]] = LocalOptions

    def start(self, replica: Replica, link: CenterLink) -> None:
        del link
        self._before = replica.iteration

    def exchange(self, replica: Replica, link: CenterLink) -> int:
        gained, self._before = replica.iteration - self._before, replica.iteration
        update = torch.full_like(replica.parameters, -float(gained))
        return link.exchange(update, Move("subtract"), replica.iteration).staleness
