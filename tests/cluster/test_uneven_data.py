"""Data that do not go round: settled at once with what to do, or read round and round. No hang."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from frames import SHAPE, estimator, images
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tiny_task import enumerate_datums, make_plan, run_plan
from trainer.data.database import write_database
from trainer.errors import TrainerError

pytestmark = pytest.mark.cluster

STRATEGIES = pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])


def dealt(spark: SparkSession, counts: Sequence[int], *, held_out: int | None = None) -> DataFrame:
    """Return a DataFrame with so many rows in each partition; all of one may be held out."""
    drawn, labels = images(sum(counts))
    rows = list(zip(drawn, labels, strict=True))
    parts, begin = [], 0
    for number, count in enumerate(counts):
        part = rows[begin : begin + count]
        parts.append([(bytearray(i.tobytes()), int(n), number == held_out) for i, n in part])
        begin += count
    data = spark.sparkContext.parallelize(parts, len(parts)).flatMap(list)
    return spark.createDataFrame(data, "features binary, label int, apart boolean")


def database(folder: Path, count: int) -> None:
    """Write the tiny task's data, with so many images to train on."""
    for name, images_of in (("train_lmdb", count), ("test_lmdb", 16)):
        drawn, labels = images(images_of)
        write_database(folder / name, enumerate_datums(drawn.reshape(-1, *SHAPE), labels))


def test_a_worker_whose_rows_are_all_held_out_says_so(spark: SparkSession, tmp_path: Path) -> None:
    data = dealt(spark, [9, 7], held_out=0)
    apart = {"validation_indicator_col": "apart", "max_iter": 6}
    with pytest.raises(TrainerError, match=r"worker 0 .*partition of the DataFrame has no rows"):
        estimator(tmp_path, strategy="sparknet", **apart).fit(data)
    dealing = estimator(tmp_path, strategy="deepspark", force_repartition=True, **apart)
    trained = dealing.fit(data)
    assert trained.summary.iterations == 6
    assert set(trained.summary.validation) == {"accuracy", "loss"}


@STRATEGIES
def test_fewer_rows_than_workers_end_the_run_with_the_remedy(
    strategy: str, spark: SparkSession, tmp_path: Path
) -> None:
    with pytest.raises(TrainerError, match=r"worker \d on .*has no rows: use fewer workers"):
        estimator(tmp_path, strategy=strategy).fit(dealt(spark, [0, 0, 1]))


@STRATEGIES
def test_more_partitions_than_workers_are_dealt_out(
    strategy: str, spark: SparkSession, tmp_path: Path
) -> None:
    data = dealt(spark, [0, 11, 0, 1, 2])
    trained = estimator(tmp_path, strategy=strategy, max_iter=8).fit(data)
    assert trained.summary.samples == 40


def test_a_row_for_each_worker_is_enough(spark: SparkSession, tmp_path: Path) -> None:
    for strategy in ("sync", "asysg"):
        trained = estimator(tmp_path, strategy=strategy, max_iter=6).fit(dealt(spark, [1, 1]))
        assert trained.summary.iterations == 6


def test_rows_that_weigh_nothing_end_the_run(spark: SparkSession, tmp_path: Path) -> None:
    data = dealt(spark, [5, 6], held_out=1).withColumn("w", F.when(F.col("apart"), 0).otherwise(2))
    with pytest.raises(TrainerError, match=r"worker 1 on .*all weights .* are 0"):
        estimator(tmp_path, weight_col="w").fit(data)


def test_partitions_without_rows_are_predicted(spark: SparkSession, tmp_path: Path) -> None:
    trained = estimator(tmp_path, max_iter=6).fit(dealt(spark, [6, 7]))
    for counts in ([0, 3, 0], [0]):
        assert trained.transform(dealt(spark, counts)).count() == sum(counts)


@STRATEGIES
@pytest.mark.parametrize(
    ("count", "message"),
    [
        (1, r"worker \d on .*expected at least one entry for each of 2 workers; it holds 1: use"),
        (0, r"train_lmdb: the database is empty; convert the images again"),
    ],
)
def test_a_database_of_fewer_entries_than_workers_is_refused(
    strategy: str, count: int, message: str, spark: SparkSession, tmp_path: Path
) -> None:
    database(tmp_path, count)
    with pytest.raises(TrainerError, match=message):
        run_plan(make_plan(strategy, 2, tmp_path, master=None), tmp_path)


@STRATEGIES
def test_a_database_of_fewer_entries_than_a_batch_is_read_round_and_round(
    strategy: str, spark: SparkSession, tmp_path: Path
) -> None:
    database(tmp_path, 3)  # one and two entries, batches of five
    outcome = run_plan(make_plan(strategy, 2, tmp_path, master=None), tmp_path)
    assert outcome.result.iteration == 40


@STRATEGIES
def test_workers_in_other_processes_read_their_shards(
    strategy: str, spark: SparkSession, tmp_path: Path
) -> None:
    for rank, count in enumerate((7, 2)):
        database(tmp_path / f"shard-{rank}", count)
    shards = tmp_path / "shard-{rank}"
    prefix = {"snapshot_prefix": str(tmp_path / "tiny")}
    outcome = run_plan(make_plan(strategy, 2, shards, master=None), shards, **prefix)
    assert outcome.result.iteration == 40
    (tmp_path / "other-0").symlink_to(tmp_path / "shard-0")
    missing = tmp_path / "other-{rank}"
    with pytest.raises(TrainerError, match=rf"worker 1 .* its shard at {tmp_path}/other-1"):
        run_plan(make_plan(strategy, 2, missing, master=None), missing, **prefix)
