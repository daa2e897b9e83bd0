"""Workers as the tasks of a stage over the partitions of a DataFrame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame

from prototxt_parser.data_spec import DataSpec
from trainer.cluster.dataframe.columns import map_in_arrow
from trainer.cluster.dataframe.inputs import Input
from trainer.cluster.dataframe.row_feed import Partition, RowFeed
from trainer.cluster.spark import Job, Parcel, SparkCluster
from trainer.plan import DistributedPlan


@final
class DataFrameCluster(SparkCluster):
    """Runs the worker of rank r on partition r, whose rows stream into its task through Arrow.

    Args:
        plan: The run.
        frame: As many partitions as workers; a column for each input, and perhaps one of weights.
        inputs: How blobs are made of the columns.
        batch_size: Rows of a batch.
    """

    def __init__(
        self, plan: DistributedPlan, frame: DataFrame, inputs: Sequence[Input], batch_size: int
    ) -> None:
        super().__init__(plan)
        self._frame, self._inputs, self._batch_size = frame, tuple(inputs), batch_size

    def _run_stage(self, job: Job, parcels: Sequence[Parcel]) -> None:
        """Run `job` on every parcel, with the rows of its partition."""
        stage = _Stage(job, tuple(parcels), self._inputs, self._batch_size)
        map_in_arrow(self._frame, stage, "rank int", barrier=job.in_group).collect()


@final
@dataclass(frozen=True)
class _Stage:
    """What each task of the stage runs: the parcel of its number."""

    job: Job
    parcels: tuple[Parcel, ...]
    inputs: tuple[Input, ...]
    batch_size: int

    def __call__(self, batches: Iterable[Any]) -> Iterator[Any]:
        context = TaskContext.get()
        rank = context.partitionId() if context is not None else 0
        task = self.job.opened(self.parcels[rank])

        def open_rows(specs: Sequence[DataSpec]) -> RowFeed:
            # Here, and not before, because a worker reports to the driver what fails in it.
            del specs
            partition = Partition(self.inputs, batches)
            return RowFeed(partition, self.batch_size, task.plan.seed, rank)

        self.job.run(replace(task, open_feed=open_rows))
        yield pa.RecordBatch.from_arrays([pa.array([rank], pa.int32())], ["rank"])
