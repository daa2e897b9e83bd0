"""CaffeEstimator on a real `local[2]`: what it learns from, what comes out, what is refused."""

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from frames import CLASSES, LAYERS, LINE_NET, PAIRS_NET, SHAPE, estimator, image_frame, images
from PIL import Image
from pyspark import TaskContext
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prototxt_parser import build_net, load_weights, read_net
from trainer.cluster.dataframe import CaffeEstimator, CaffeModel
from trainer.cluster.dataframe.columns import lies_in
from trainer.errors import DataError, TrainerError, UsageError

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> DataFrame:
    """Return 60 labelled images; every fourth is to be held out, some weigh more."""
    apart = [number % 4 == 0 for number in range(60)]
    weights = [float(number % 3) for number in range(60)]
    return image_frame(spark, apart=apart, weight=weights).cache()


@pytest.fixture(scope="module")
def model(frame: DataFrame, tmp_path_factory: pytest.TempPathFactory) -> CaffeModel:
    folder = tmp_path_factory.mktemp("model")
    return estimator(folder, validation_indicator_col="apart").fit(frame)


def accuracy(model: CaffeModel, frame: DataFrame) -> float:
    is_right = F.col("prediction") == F.col("label")
    return model.transform(frame).select(F.avg(is_right.cast("int"))).head()[0]


def test_it_learns_and_tests_on_the_rows_held_out(model: CaffeModel, frame: DataFrame) -> None:
    summary = model.summary
    assert summary is not None
    assert (summary.iterations, summary.samples) == (120, 600)
    assert summary.loss_history[0][1] > 4 * summary.loss_history[-1][1]
    assert set(summary.validation) == set(summary.initial_validation) == {"accuracy", "loss"}
    assert summary.initial_validation["loss"] > 4 * summary.validation["loss"]
    apart = frame.filter("apart")
    assert summary.validation["accuracy"] == pytest.approx(accuracy(model, apart))
    assert summary.validation["accuracy"] > 0.9


def test_columns_equal_what_the_net_gives_here(
    model: CaffeModel, frame: DataFrame, tmp_path: Path
) -> None:
    model.save_caffemodel(tmp_path / "tiny.caffemodel")
    (tmp_path / "net.prototxt").write_text(model.net)
    shapes = {"data": (60, *SHAPE), "label": (60,)}
    net = build_net(read_net(tmp_path / "net.prototxt"), "TEST", input_shapes=shapes)
    load_weights(net, tmp_path / "tiny.caffemodel")
    drawn, labels = images(60)
    data = (torch.from_numpy(drawn).float() - 20) * np.float32(0.01)
    with torch.no_grad():
        net({"data": data, "label": torch.from_numpy(labels).float()})
    score = net.blobs["score"]
    wanted = model.copy({model.outputCols: {"hidden": "h", "score": "s"}, model.batchSize: 60})
    rows = wanted.transform(frame.coalesce(1)).collect()
    assert [row.s for row in rows] == score.tolist()
    assert [row.h for row in rows] == net.blobs["hidden"].tolist()
    assert [row.prediction for row in rows] == score.argmax(1).double().tolist()
    expected = torch.softmax(score, 1).numpy()
    np.testing.assert_allclose([row.probability.toArray() for row in rows], expected, atol=1e-7)


def test_batches_of_any_size_give_the_same(model: CaffeModel, frame: DataFrame) -> None:
    few = model.copy({model.batchSize: 7}).transform(frame)
    many = model.transform(frame)
    pairs = zip(few.collect(), many.collect(), strict=True)
    assert all(one.prediction == other.prediction for one, other in pairs)


def png(pixels: np.ndarray) -> bytearray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return bytearray(stream.getvalue())


def as_vectors(frame: DataFrame) -> DataFrame:
    return frame.select(array_to_vector("values").alias("features"), "label")


def as_doubles(frame: DataFrame) -> DataFrame:
    return frame.select(F.col("values").cast("array<double>").alias("features"), "label")


def as_bytes(frame: DataFrame) -> DataFrame:
    return frame.select("features", F.col("label").cast("float"))


@pytest.mark.parametrize(
    ("convert", "strategy"),
    [(as_vectors, "sparknet"), (as_doubles, "deepspark"), (as_bytes, "sparknet")],
)
def test_every_kind_of_column_gives_the_same_model(
    convert: Callable[[DataFrame], DataFrame], strategy: str, frame: DataFrame, tmp_path: Path
) -> None:
    one = estimator(tmp_path, strategy=strategy, num_workers=1, max_iter=8)
    for name, data in (("bytes", frame), ("other", convert(frame))):
        one.fit(data.coalesce(1)).save_caffemodel(tmp_path / name)
    assert (tmp_path / "bytes").read_bytes() == (tmp_path / "other").read_bytes()


def test_images_are_decoded_and_cropped(spark: SparkSession, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    labels = [number % 2 for number in range(24)]
    sizes = [(9 + number % 3, 10 + number % 2) for number in range(24)]
    pictures = [
        png(np.uint8(random.integers(0, 60, (*size, 3)) + 150 * label))
        for size, label in zip(sizes, labels, strict=True)
    ]
    frame = spark.createDataFrame(list(zip(pictures, labels, strict=True)), ["image", "label"])
    net = (
        """
layer { name: "d" type: "Data" top: "data" top: "label"
  transform_param { crop_size: 8 mirror: true scale: 0.004 } data_param { batch_size: 4 } }
"""
        + LAYERS
    )
    trained = estimator(tmp_path, net, features_col="image", max_iter=60).fit(frame)
    assert accuracy(trained, frame) == 1


def test_a_net_with_several_inputs(spark: SparkSession, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    left = random.normal(size=(40, 3))
    far = [number % 2 for number in range(40)]
    right = left + 0.1 * random.normal(size=left.shape)
    rows = [
        (one.tolist(), Vectors.dense(other), 1 - apart, number)
        for number, (one, other, apart) in enumerate(zip(left, right, far, strict=True))
    ]
    frame = spark.createDataFrame(rows, ["a", "b", "same", "id"])
    columns = {"left": "a", "right": "b", "far": "same"}
    pairs = estimator(tmp_path, PAIRS_NET, input_cols=columns, max_iter=30, base_lr=0.01)
    trained = pairs.fit(frame)
    unlabelled = frame.drop("same")
    wanted = trained.copy({trained.outputCols: {"near_l": "one", "near_r": "other"}})
    result = wanted.transform(unlabelled)
    assert result.columns == ["a", "b", "id", "one", "other"]
    assert all(len(row.one) == len(row.other) == 2 for row in result.collect())
    named = frame.select(*[F.col(name).alias(blob) for blob, name in columns.items()])
    names = estimator(tmp_path, PAIRS_NET, input_cols=["left", "right", "far"], max_iter=4)
    assert names.fit(named).summary.iterations == 4


def test_regression_predicts_the_value(spark: SparkSession, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    x = random.normal(size=(48, 2))
    rows = [(row.tolist(), float(row @ [2, -1] + 0.5)) for row in x]
    frame = spark.createDataFrame(rows, ["features", "label"])
    trained = estimator(tmp_path, LINE_NET, max_iter=300, base_lr=0.05).fit(frame)
    for row in trained.transform(frame).collect():
        assert row.prediction == pytest.approx(row.label, abs=0.05)
    assert "probability" not in trained.transform(frame).columns
    with pytest.raises(UsageError, match="probabilityCol: the losses of this net say no"):
        trained.copy({trained.probabilityCol: "p"}).transform(frame)


def test_weights_say_how_often_rows_are_drawn(frame: DataFrame, tmp_path: Path) -> None:
    only_two = frame.withColumn("w", F.when(F.col("label") < 2, 2.5).otherwise(0.0))
    trained = estimator(tmp_path, weight_col="w").fit(only_two)
    predicted = {row.prediction for row in trained.transform(frame).collect()}
    assert predicted <= {0.0, 1.0}
    with pytest.raises(TrainerError, match="expected a weight of 0 or more; received -1"):
        estimator(tmp_path, weight_col="w").fit(frame.withColumn("w", F.lit(-1)))


def test_a_third_input_takes_the_weights(frame: DataFrame, tmp_path: Path) -> None:
    net = (
        """
layer { name: "d" type: "HDF5Data" top: "data" top: "label" top: "weight"
  hdf5_data_param { batch_size: 4 } }
layer { name: "s" type: "Silence" bottom: "weight" }
"""
        + LAYERS
    )
    files = {"features_col": "values", "weight_col": "weight", "max_iter": 6}
    trained = estimator(tmp_path, net, **files, solver_params={"clip_gradients": 1}).fit(frame)
    assert "prediction" in trained.transform(frame.select("values")).columns


@pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])
def test_uneven_partitions_are_read_round_and_round(
    strategy: str, spark: SparkSession, frame: DataFrame, tmp_path: Path
) -> None:
    rows = frame.select("features", "label").take(12)
    uneven = spark.sparkContext.parallelize([rows[:1], rows[1:]], 2).flatMap(list)
    data = spark.createDataFrame(uneven, frame.select("features", "label").schema)
    assert data.rdd.glom().map(len).collect() == [1, 11]
    trained = estimator(tmp_path, strategy=strategy, max_iter=20).fit(data)
    assert trained.summary.samples == 100


@pytest.mark.parametrize("strategy", ["sparknet", "deepspark"])
def test_a_worker_without_rows_says_so(
    strategy: str, spark: SparkSession, frame: DataFrame, tmp_path: Path
) -> None:
    rows = frame.select("features", "label").take(3)
    empty = spark.sparkContext.parallelize([[], rows], 2).flatMap(list)
    data = spark.createDataFrame(empty, frame.select("features", "label").schema)
    with pytest.raises(TrainerError, match=r"worker 0 .*partition of the DataFrame has no rows"):
        estimator(tmp_path, strategy=strategy).fit(data)
    dealt = estimator(tmp_path, strategy=strategy, force_repartition=True, max_iter=4).fit(data)
    assert dealt.summary.iterations == 4


def test_a_lost_worker_reads_its_partition_again(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make_row(number: int) -> tuple[list[float], int]:
        if number == 11 and TaskContext.get().attemptNumber() == 0:
            os._exit(1)
        return [1.0 * number, 2.0, 3.0, 0.0, 1.0, 0.0], number % CLASSES

    numbers = spark.sparkContext.range(12, numSlices=2)
    data = spark.createDataFrame(numbers.map(make_row), "features array<double>, label int")
    caplog.set_level(logging.WARNING, "trainer")
    trained = estimator(tmp_path, strategy="deepspark", max_iter=40).fit(data)
    assert trained.summary.iterations == 40
    assert any("attempt 2 goes on" in record.getMessage() for record in caplog.records)


def bad_rows(frame: DataFrame, expression: str) -> DataFrame:
    """Return the rows with the features or the label of the 41st replaced."""
    name, value = expression.split(" <- ")
    bad = F.when(F.col("id") == 40, F.expr(value)).otherwise(F.col(name))
    data = frame.coalesce(1).withColumn("id", F.monotonically_increasing_id())
    return data.withColumn(name, bad).select("features", "label")


@pytest.mark.parametrize(
    ("strategy", "expression", "message"),
    [
        ("sparknet", "features <- null", r'blob "data", row 40 .*received null'),
        ("deepspark", "features <- X'0102'", r"expected 6 bytes.* \(2 x 3 x 1\); received 2"),
        ("sparknet", "label <- 4", r'blob "label", row 40 .*label from 0 to 3.*received 4'),
        ("deepspark", "label <- 1.5", r"row 40 .*a whole number; received 1.5"),
    ],
)
def test_bad_rows_are_named(
    strategy: str, expression: str, message: str, frame: DataFrame, tmp_path: Path
) -> None:
    data = bad_rows(frame.withColumn("label", F.col("label").cast("double")), expression)
    with pytest.raises(TrainerError, match=rf"^worker 0 on .*{message}"):
        estimator(tmp_path, strategy=strategy, num_workers=1).fit(data)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"features_col": "feature"}, r'no column "feature"; did you mean "features"'),
        ({"label_col": "words"}, r'column "words": expected binary.*string: .*StringIndexer'),
        ({"input_shape": [2, 2, 1]}, r'column "features": .*expected 4 bytes.*received 6'),
        ({"input_shape": {"dat": [2, 3, 1]}}, r'inputShape: .*"dat"; did you mean "data"'),
        ({"input_cols": {"data": "features"}}, "inputCols: .*received none for label"),
        ({"validation_indicator_col": "label"}, "validationIndicatorCol: expected booleans"),
        ({"weight_col": "words"}, "weightCol: expected numbers"),
        ({"strategy": "sparknut"}, 'unknown strategy "sparknut".*sparknet'),
        ({"strategy_params": {"sync_intervall": 3}}, r'strategyParams: .*did you mean "sync_int'),
        ({"run_params": {"encription": "on"}}, r'runParams: .*did you mean "encryption"'),
        ({"run_params": {"servers": "two"}}, "runParams: servers: expected a value like 0"),
        ({"run_params": {"overlap": True}}, "overlap: .*exchange together"),
        ({"solver_params": {"base_rl": 3}}, r'solverParams: .*"base_rl"; did you mean "base_lr"'),
        (
            {"strategy": "sparknet", "strategy_params": {"warm_start": 3}},
            "rows of a DataFrame are with the workers.*leave out warm_start",
        ),
        ({"num_workers": 0}, "num_workers: expected 1 or more; received 0"),
        ({"num_workers": 3}, r"3 workers of 1 core.* room for 2"),
    ],
)
def test_wrong_params_are_refused_before_anything_runs(
    params: dict, message: str, frame: DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(TrainerError, match=message):
        estimator(tmp_path, **params).fit(frame.withColumn("words", F.lit("one")))


def test_rows_stay_where_they_lie_only_if_a_barrier_stage_can_read_them(
    spark: SparkSession,
) -> None:
    two = spark.range(12, numPartitions=2)
    assert lies_in(two, 2)
    assert lies_in(two.filter("id > 3").withColumn("twice", F.col("id") * 2), 2)
    assert lies_in(two.repartition(3), 3)
    assert not lies_in(two, 3)
    assert not lies_in(two.coalesce(1), 1)
    assert not lies_in(two.union(two), 4)
    assert not lies_in(two.groupBy("id").count(), 3)


def test_fits_in_a_seed_are_equal(frame: DataFrame, tmp_path: Path) -> None:
    data = frame.select("features", "label").repartition(1)
    weights = []
    for seed in (7, 7, 8):
        one = estimator(tmp_path, num_workers=1, max_iter=6, seed=seed).fit(data)
        one.save_caffemodel(tmp_path / "one")
        weights.append((tmp_path / "one").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_a_wrong_row_held_out_is_found_before_the_training(
    frame: DataFrame, tmp_path: Path
) -> None:
    bad = frame.withColumn("label", F.when(F.col("apart"), 9).otherwise(F.col("label")))
    endless = estimator(tmp_path, validation_indicator_col="apart", max_iter=10**8)
    with pytest.raises(TrainerError, match=r"validation: .*label from 0 to 3.*received 9"):
        endless.fit(bad)
    with pytest.raises(UsageError, match="no row is held out"):
        endless.fit(frame.withColumn("apart", F.lit(None).cast("boolean")))


def test_raw_bytes_need_a_shape(frame: DataFrame, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'column "features": 6 raw bytes .* inputShape'):
        estimator(tmp_path, input_shape=None).fit(frame)
    with pytest.raises(DataError, match="no rows to train on"):
        estimator(tmp_path).fit(frame.limit(0))


def test_dynamic_allocation_is_refused(
    frame: DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = frame.sparkSession.sparkContext
    conf = context.getConf().set("spark.dynamicAllocation.enabled", "true")
    monkeypatch.setattr(type(context), "getConf", lambda self: conf)
    with pytest.raises(TrainerError, match=r"set spark\.dynamicAllocation\.enabled to false"):
        estimator(tmp_path).fit(frame)


def test_rows_never_come_to_the_driver(spark: SparkSession, tmp_path: Path) -> None:
    # 30 MB of features, 10 MB of new columns; spark.driver.maxResultSize is 1 MB.
    large = spark.range(600, numPartitions=2).select(
        F.expr("transform(sequence(1, 12500), x -> float(rand()))").alias("features"),
        (F.col("id") % CLASSES).alias("label"),
        (F.col("id") % 5 == 0).alias("apart"),
    )
    net = (
        """
layer { name: "d" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { batch_size: 20 } }
"""
        + LAYERS
    )
    settings = {"validation_indicator_col": "apart", "output_cols": {"data": "again"}}
    trained = estimator(tmp_path, net, max_iter=60, base_lr=0.0001, **settings).fit(large)
    assert trained.summary.samples == 1200
    assert set(trained.summary.validation) == {"accuracy", "loss"}
    again = trained.transform(large).select(F.sum(F.size("again"))).head()[0]
    assert again == 600 * 12500


def test_a_connect_session_is_refused_with_the_remedy(tmp_path: Path) -> None:
    class Remote:
        """Stands for `pyspark.sql.connect.dataframe.DataFrame`, which has no JVM behind it."""

    with pytest.raises(UsageError, match=r"Spark Connect session.*classic session"):
        CaffeEstimator().fit(Remote())
