"""One worker's part of a run, as it travels."""

from __future__ import annotations

from dataclasses import dataclass

from prototxt_parser.definition import NetDefinition
from prototxt_parser.proto.caffe_pb2 import SolverParameter
from solvers.feed import FeedOpener
from trainer.plan import DistributedPlan, Milestones


@dataclass(frozen=True)
class WorkerTask:
    """What a worker has to do; nothing in it is open.

    Attributes:
        rank: Which worker.
        plan: The run.
        milestones: When the driver wants the state of a synchronous run.
        param: The solver's settings, without what the driver does: display, test, snapshot.
        net: The net to train.
        open_feed: Where its batches come from; None for the files that it names.
    """

    rank: int
    plan: DistributedPlan
    milestones: Milestones
    param: SolverParameter
    net: NetDefinition
    open_feed: FeedOpener | None = None
