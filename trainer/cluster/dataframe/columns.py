"""Which columns of a DataFrame fill which blobs, and how they are selected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, BooleanType, NumericType
from pyspark.sql.udf import UserDefinedFunction
from pyspark.util import PythonEvalType

from prototxt_parser.text import did_you_mean
from trainer.errors import UsageError


@dataclass(frozen=True)
class Columns:
    """What the user says about columns.

    Attributes:
        features: Fills the first blob that the net is fed.
        label: Fills the second.
        weight: Fills the third; if there is none, says how often rows are drawn. None for no
            weights.
        by_blob: Instead of all that: the column of every blob.
    """

    features: str
    label: str
    weight: str | None = None
    by_blob: Mapping[str, str] | None = None

    def of(self, blobs: Sequence[str]) -> dict[str, str]:
        """Return the column of every blob that a net is fed.

        Raises:
            UsageError: There is none for one of them.
        """
        if self.by_blob is not None:
            missing = [blob for blob in blobs if blob not in self.by_blob]
            if missing:
                raise UsageError(
                    f"inputCols: the net is fed {', '.join(blobs)}; expected a column for each, "
                    f"received none for {', '.join(missing)}"
                )
            return {blob: self.by_blob[blob] for blob in blobs}
        given = [self.features, self.label, *([self.weight] if self.weight else [])]
        if len(blobs) > len(given):
            raise UsageError(
                f"the net is fed {', '.join(blobs)}; featuresCol, labelCol and weightCol fill "
                f"{len(given)} of them: name the column of each blob by inputCols"
            )
        return dict(zip(blobs, given, strict=False))

    def sampling_weight(self, blobs: Sequence[str]) -> str | None:
        """Return the column of weights that no blob takes."""
        return self.weight if self.weight not in self.of(blobs).values() else None


def check_names(columns: Columns, blobs: Sequence[str]) -> None:
    """Refuse columns for blobs that the net is not fed.

    Raises:
        UsageError: inputCols names such a blob.
    """
    for blob in columns.by_blob or {}:
        if blob not in blobs:
            hint = did_you_mean(blob, blobs) or f": it is fed {', '.join(blobs)}"
            raise UsageError(f'inputCols: the net is not fed a blob "{blob}"{hint}')


def select(frame: DataFrame, columns: Mapping[str, str], weight: str | None = None) -> DataFrame:
    """Return a DataFrame with a column for each blob, in order, and one of weights if there is one.

    Raises:
        UsageError: A column is missing, or of a type that fills no blob.
    """
    chosen = [_value(frame, name).alias(blob) for blob, name in columns.items()]
    if weight is not None:
        if not isinstance(_type(frame, weight), NumericType):
            raise UsageError(
                f'weightCol: expected numbers in column "{weight}"; it holds '
                f"{_type(frame, weight).simpleString()}"
            )
        chosen.append(column(weight).cast("double").alias("torrefy weight"))
    return frame.select(*chosen)


def split(frame: DataFrame, indicator: str | None) -> tuple[DataFrame, DataFrame | None]:
    """Return the rows to train on, and those that a column of booleans keeps apart.

    Raises:
        UsageError: The column is missing or holds no booleans.
    """
    if indicator is None:
        return frame, None
    if not isinstance(_type(frame, indicator), BooleanType):
        raise UsageError(
            f'validationIndicatorCol: expected booleans in column "{indicator}"; it holds '
            f"{_type(frame, indicator).simpleString()}"
        )
    is_apart = F.coalesce(column(indicator), F.lit(False))
    return frame.filter(~is_apart), frame.filter(is_apart)


def column(name: str) -> Column:
    """Return the column of exactly this name, which may hold dots."""
    return F.col("`{}`".format(name.replace("`", "``")))


def call_in_arrow(
    function: Callable[[Iterator[Any]], Iterator[Any]],
    schema: str,
    frame: DataFrame,
    columns: Mapping[str, str],
) -> Column:
    """Return what a function makes of one struct of the columns that fill blobs.

    Args:
        function: From an iterator of Arrow arrays to one of as many rows.
        schema: Type of the result, in SQL.
        frame: Where the columns are.
        columns: The column of each blob.

    Raises:
        UsageError: A column is missing, or of a type that fills no blob.
    """
    struct = F.struct(*[_value(frame, name).alias(blob) for blob, name in columns.items()])
    kind = PythonEvalType.SQL_SCALAR_ARROW_ITER_UDF
    called: Column = UserDefinedFunction(function, schema, evalType=kind)(struct)
    return called


def map_in_arrow(
    frame: DataFrame,
    function: Callable[[Iterator[Any]], Iterator[Any]],
    schema: str,
    *,
    barrier: bool = False,
) -> DataFrame:
    """Return `frame.mapInArrow(...)`, which itself asks for pandas only to leave it unused."""
    udf = UserDefinedFunction(function, schema, evalType=PythonEvalType.SQL_MAP_ARROW_ITER_UDF)
    call: Any = udf(*[column(name) for name in frame.columns])
    java: Any = frame
    return DataFrame(java._jdf.mapInArrow(call._jc, barrier, None), frame.sparkSession)


def lies_in(frame: DataFrame, count: int) -> bool:
    """Return whether the rows are known to lie in `count` partitions that a barrier stage can read.

    Such a stage cannot begin with partitions joined to fewer (coalesce, union, limit). Of a plan
    that Spark adapts while it runs, only one that ends in a repartitioning is known.
    """
    java: Any = frame
    execution = java._jdf.queryExecution()
    if execution.executedPlan().getClass().getSimpleName() != "AdaptiveSparkPlanExec":
        return all(rdd.getNumPartitions() == count for rdd in _stage(execution.toRdd()))
    plan = execution.optimizedPlan()
    is_known = plan.getClass().getSimpleName() == "Repartition" and plan.shuffle()
    return bool(is_known and plan.numPartitions() == count)


def _stage(rdd: Any) -> Iterator[Any]:
    """Yield an RDD of the JVM and all that are computed in the same stage."""
    yield rdd
    dependencies = rdd.dependencies()
    for number in range(dependencies.size()):
        dependency = dependencies.apply(number)
        if dependency.getClass().getSimpleName() != "ShuffleDependency":
            yield from _stage(dependency.rdd())


def cores_of_a_task(frame: DataFrame) -> int:
    """Return how many cores Spark gives a task."""
    return int(frame.sparkSession.sparkContext.getConf().get("spark.task.cpus", "1") or 1)


def check_session(frame: DataFrame) -> None:
    """Refuse a DataFrame of Spark Connect.

    Raises:
        UsageError: Its session is a remote one.
    """
    if not hasattr(frame, "_jdf"):
        raise UsageError(
            "this DataFrame belongs to a Spark Connect session, whose client has no way to the "
            "executors, and workers have to reach the driver: run the program with a classic "
            "session, on the driver (spark-submit, or SparkSession.builder.master(...) without "
            "SPARK_REMOTE)"
        )


def _value(frame: DataFrame, name: str) -> Column:
    kind = _type(frame, name)
    if isinstance(kind, VectorUDT):
        return vector_to_array(column(name), "float32")
    if isinstance(kind, ArrayType) and isinstance(kind.elementType, NumericType | BooleanType):
        return column(name).cast("array<float>")
    if isinstance(kind, BinaryType):
        return column(name)
    if isinstance(kind, NumericType | BooleanType):
        return column(name).cast("double")
    remedy = {"string": "turn words into numbers with StringIndexer"}.get(
        kind.typeName(), "select or convert its parts"
    )
    raise UsageError(
        f'column "{name}": expected binary, a vector, an array of numbers or a number; it holds '
        f"{kind.simpleString()}: {remedy}"
    )


def _type(frame: DataFrame, name: str) -> Any:
    for each in frame.schema.fields:
        if each.name == name:
            return each.dataType
    hint = did_you_mean(name, frame.columns)
    raise UsageError(
        f'the DataFrame has no column "{name}"{hint}; it has {", ".join(frame.columns) or "none"}'
    )
