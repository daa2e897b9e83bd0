"""Small DataFrames and nets for tests of the estimator."""

from pathlib import Path
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from trainer.cluster.dataframe import CaffeEstimator

SHAPE = (2, 3, 1)  # of an image
CLASSES = 4

LAYERS = """
layer { name: "hidden" type: "InnerProduct" bottom: "data" top: "hidden"
  inner_product_param { num_output: 7 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "hidden" top: "hidden" }
layer { name: "score" type: "InnerProduct" bottom: "hidden" top: "score"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "score" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""
NET = (
    """
name: "tiny"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.01 mean_value: 20 }
  data_param { source: "nowhere" batch_size: 5 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.01 mean_value: 20 }
  data_param { source: "nowhere" batch_size: 8 backend: LMDB } }
"""
    + LAYERS
)
SOLVER = """
net: "NET" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 max_iter: 120
test_iter: 2 test_interval: 50 snapshot: 60 random_seed: 3
"""
PAIRS_NET = """
name: "pairs"
layer { name: "pair" type: "Input" top: "left" top: "right" top: "far"
  input_param { shape { dim: 6 dim: 3 } shape { dim: 6 dim: 3 } shape { dim: 6 } } }
layer { name: "ip_l" type: "InnerProduct" bottom: "left" top: "near_l" param { name: "w" }
  param { name: "b" } inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "ip_r" type: "InnerProduct" bottom: "right" top: "near_r" param { name: "w" }
  param { name: "b" } inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "ContrastiveLoss" bottom: "near_l" bottom: "near_r" bottom: "far"
  top: "loss" contrastive_loss_param { margin: 1 } }
"""
LINE_NET = """
name: "line"
layer { name: "rows" type: "Input" top: "x" top: "y"
  input_param { shape { dim: 4 dim: 2 } shape { dim: 4 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""


def images(count: int, seed: int = 1701) -> tuple[np.ndarray, np.ndarray]:
    """Return images of noise, and which of their first four values is much larger."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, 40, size=(count, *SHAPE), dtype=np.uint8)
    labels = random.integers(0, CLASSES, size=count)
    for image, label in zip(drawn, labels, strict=True):
        image.reshape(-1)[label] += 150
    return drawn, labels


def image_frame(spark: SparkSession, count: int = 60, **extra: Any) -> DataFrame:
    """Return images as bytes and as arrays of numbers, with labels and `extra` columns."""
    drawn, labels = images(count)
    rows = [
        (bytearray(image.tobytes()), image.reshape(-1).tolist(), int(label), *more)
        for image, label, *more in zip(drawn, labels, *extra.values(), strict=True)
    ]
    return spark.createDataFrame(rows, ["features", "values", "label", *extra])


def write_files(folder: Path, net: str = NET, solver: str = SOLVER) -> str:
    """Write a net and its solver; returns the solver's path."""
    (folder / "net.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text(solver.replace("NET", str(folder / "net.prototxt")))
    return str(folder / "solver.prototxt")


def estimator(folder: Path, net: str = NET, **params: Any) -> CaffeEstimator:
    """Return an estimator of the small net."""
    shape = {"input_shape": list(SHAPE)} if net == NET else {}
    settings = {"num_workers": 2, "seed": 7, **shape, **params}
    return CaffeEstimator(solver=write_files(folder, net), **settings)
