"""The estimator and its model among pyspark.ml's own: Params, files, pipelines, grids."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frames import NET, SHAPE, estimator, image_frame
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import StringIndexer
from pyspark.ml.tuning import CrossValidator, CrossValidatorModel, ParamGridBuilder
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prototxt_parser import build_net, load_weights, read_net
from prototxt_parser.proto import caffe_pb2
from torrefy.spark import CaffeEstimator, CaffeModel
from trainer.data.mean_file import write_mean
from trainer.errors import DataError, UsageError

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> DataFrame:
    return image_frame(spark).repartition(2).cache()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(frame: DataFrame, folder: Path) -> CaffeModel:
    return estimator(folder, output_cols={"hidden": "h"}, batch_size=6).fit(frame)


def test_params_take_both_spellings(frame: DataFrame) -> None:
    one = CaffeEstimator(net="a", num_workers=3, features_col="x", baseLr=0.5)
    assert (one.getOrDefault("numWorkers"), one.getFeaturesCol()) == (3, "x")
    assert one.getOrDefault(one.baseLr) == 0.5
    assert "numWorkers: tasks that train at once" in one.explainParams()
    with pytest.raises(UsageError, match=r'no Param "num_worker"; did you mean "numWorkers"'):
        CaffeEstimator(num_worker=3)
    with pytest.raises(TypeError, match="numWorkers"):
        CaffeEstimator(num_workers="many")
    with pytest.raises(UsageError, match="give --solver, --net, or both"):
        CaffeEstimator().fit(frame)


def test_an_estimator_is_saved_and_loaded(spark: SparkSession, tmp_path: Path) -> None:
    one = estimator(tmp_path, strategy_params={"sync_interval": 5}, input_cols={"data": "x"})
    one.write().overwrite().save(str(tmp_path / "one"))
    again = CaffeEstimator.load(str(tmp_path / "one"))
    assert {p.name: v for p, v in again.extractParamMap().items()} == {
        p.name: v for p, v in one.extractParamMap().items()
    }


def test_a_model_is_saved_and_loaded(model: CaffeModel, frame: DataFrame, folder: Path) -> None:
    path = str(folder / "saved")
    model.save(path)
    again = CaffeModel.load(path)
    assert again.uid == model.uid
    assert again.summary is None
    assert (again.net, again.solver) == (model.net, model.solver)
    assert again.transform(frame).collect() == model.transform(frame).collect()
    (part,) = (folder / "saved/metadata").glob("part-*")
    metadata = json.loads(part.read_text())
    assert metadata["class"] == "torrefy.spark.CaffeModel"
    with pytest.raises(Exception, match="already exists"):
        model.save(path)
    model.write().overwrite().save(path)
    (folder / "saved/weights.caffemodel").unlink()
    with pytest.raises(DataError, match=r"saved: the model cannot be read from there: .*weights"):
        CaffeModel.load(path)


def test_the_files_are_caffes(model: CaffeModel, folder: Path) -> None:
    path = folder / "caffe"
    model.save(str(path))
    message = caffe_pb2.NetParameter.FromString((path / "weights.caffemodel").read_bytes())
    assert [layer.type for layer in message.layer if layer.blobs] == ["InnerProduct"] * 2
    assert message.layer[0].type == "Data"
    deploy = build_net(read_net(path / "deploy.prototxt"), "TEST")
    load_weights(deploy, path / "weights.caffemodel")
    assert deploy.inputs == ["data"]
    assert list(deploy.outputs) == ["probability"]
    assert "max_iter: 120" in (path / "solver.prototxt").read_text()


def test_a_mean_image_goes_with_the_model(frame: DataFrame, tmp_path: Path) -> None:
    write_mean(tmp_path / "mean.binaryproto", np.full(SHAPE, 20, np.float32))
    net = NET.replace("mean_value: 20", f'mean_file: "{tmp_path}/mean.binaryproto"')
    with_file = estimator(tmp_path, net, max_iter=8).fit(frame)
    with_value = estimator(tmp_path, max_iter=8).fit(frame)
    (tmp_path / "mean.binaryproto").unlink()
    with_file.save(str(tmp_path / "saved"))
    again = CaffeModel.load(str(tmp_path / "saved"))
    rows = again.transform(frame).select("prediction").collect()
    assert rows == with_value.transform(frame).select("prediction").collect()


def test_a_pipeline_is_fitted_saved_and_loaded(frame: DataFrame, tmp_path: Path) -> None:
    words = frame.withColumn("word", F.concat(F.lit("class "), F.col("label").cast("string")))
    index = StringIndexer(inputCol="word", outputCol="number", stringOrderType="alphabetAsc")
    stages = [index, estimator(tmp_path, label_col="number")]
    fitted = Pipeline(stages=stages).fit(words.drop("label"))
    fitted.save(str(tmp_path / "pipeline"))
    again = PipelineModel.load(str(tmp_path / "pipeline"))
    rows = again.transform(words).collect()
    assert [type(stage).__name__ for stage in again.stages] == ["StringIndexerModel", "CaffeModel"]
    assert rows == fitted.transform(words).collect()
    assert sum(row.prediction == row.label for row in rows) > 50
    Pipeline(stages=stages).save(str(tmp_path / "unfitted"))
    assert Pipeline.load(str(tmp_path / "unfitted")).getStages()[1].uid == stages[1].uid


# pyspark leaves its pool of threads open.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_cross_validator_chooses(frame: DataFrame, tmp_path: Path) -> None:
    one = estimator(tmp_path, max_iter=60)
    grid = ParamGridBuilder().addGrid(one.baseLr, [0.0, 0.1]).build()
    judge = MulticlassClassificationEvaluator(metricName="accuracy")
    search = CrossValidator(
        estimator=one, estimatorParamMaps=grid, evaluator=judge, numFolds=2, seed=3
    )
    found = search.fit(frame)
    assert found.avgMetrics[1] > found.avgMetrics[0]
    assert "base_lr: 0.1" in found.bestModel.solver
    found.save(str(tmp_path / "found"))
    again = CrossValidatorModel.load(str(tmp_path / "found"))
    assert again.transform(frame).collect() == found.transform(frame).collect()


def test_columns_of_a_model_can_be_renamed(model: CaffeModel, frame: DataFrame) -> None:
    renamed = frame.withColumnRenamed("features", "a.b")
    params = {model.featuresCol: "a.b", model.predictionCol: "p.q", model.probabilityCol: ""}
    result = model.copy({**params, model.outputCols: {}}).transform(renamed)
    assert result.columns == ["a.b", "values", "label", "p.q"]
    expected = [row.prediction for row in model.transform(frame).collect()]
    assert [row["p.q"] for row in result.collect()] == expected
    with pytest.raises(UsageError, match='has a column "label" already'):
        model.copy({model.predictionCol: "label"}).transform(frame)
    with pytest.raises(UsageError, match=r'no blob "hiden"; did you mean "hidden"'):
        model.copy({model.outputCols: {"hiden": "h"}}).transform(frame)


def test_shipped_nets_are_found_by_name(spark: SparkSession) -> None:
    side = 28
    rows = spark.range(64, numPartitions=2).select(
        F.expr(f"transform(sequence(1, {side * side}), x -> float(id % 10) + rand())").alias("f"),
        (F.col("id") % 10).alias("label"),
    )
    lenet = CaffeEstimator(net="lenet.prototxt", features_col="f", num_workers=2)
    lenet.setParams(input_shape=[1, side, side], batch_size=8, max_iter=4, base_lr=0.0001)
    fitted = lenet.fit(rows)
    assert fitted.summary.samples == 32
    assert len(fitted.transform(rows).head().probability) == 10


def test_the_example_of_the_docs_runs(
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs/dataframes.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    code = page.split("```python\n")[1].split("```")[0]
    exec(code.replace('"lenet_model"', repr(str(tmp_path / "model"))), names)  # Java stays here
    assert names["model"].summary.validation["accuracy"] > 0.9
    assert len(names["result"].head().features_500) == 500
    assert Path("lenet.caffemodel").stat().st_size > 10**6
    assert float(capsys.readouterr().out.splitlines()[-1]) > 0.9


def test_the_docs_name_every_param() -> None:
    page = (Path(__file__).parents[2] / "docs/dataframes.md").read_text(encoding="utf-8")
    table = page.split("## Params")[1].split("## Spark Connect")[0]
    assert set(re.findall(r"`(\w+)`(?=[^|]*\|[^|]*\|[^|]*\|\n)", table)) == {
        param.name for param in CaffeEstimator().params
    }
