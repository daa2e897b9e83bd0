"""Testing a net on the rows of a DataFrame, where they are."""

from __future__ import annotations

from collections import Counter

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from trainer.cluster.dataframe.columns import map_in_arrow
from trainer.cluster.dataframe.nets import Evaluation, FrozenNet
from trainer.cluster.spark import reason
from trainer.errors import TrainerError, UsageError


def evaluate(net: FrozenNet, frame: DataFrame, batch_size: int) -> dict[str, float]:
    """Return the mean over all rows of every loss and measure of a net, by the blob's name.

    A batch gives one value, which counts for all of its rows. Only sums come to the driver.

    Args:
        net: Built for the TEST phase.
        frame: A column for each of its inputs, in their order.
        batch_size: Rows of a batch.

    Raises:
        UsageError: There is no row, or the net measures nothing.
        TrainerError: A row does not fit.
    """
    broadcast = frame.sparkSession.sparkContext.broadcast(net)
    try:
        test = Evaluation(broadcast, batch_size)
        found = map_in_arrow(frame, test, Evaluation.SCHEMA).collect()
    except (Py4JError, PySparkException) as error:
        raise TrainerError(f"validation: {reason(error)}") from error
    finally:
        broadcast.unpersist()
    totals: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    for metric, total, count in found:
        totals[metric] += total
        rows[metric] += count
    if not any(rows.values()):
        raise UsageError(
            "validationIndicatorCol: nothing to measure: no row is held out, or the net has no "
            "loss and no Accuracy layer in the TEST phase"
        )
    return {metric: total / rows[metric] for metric, total in totals.items()}
