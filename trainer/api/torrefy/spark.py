"""Caffe nets in `pyspark.ml`: an Estimator that trains on DataFrames, and its model.

from torrefy.spark import CaffeEstimator

model = CaffeEstimator(net="lenet_train_test.prototxt", num_workers=4).fit(df)
"""

try:
    from trainer.cluster.dataframe import CaffeEstimator, CaffeModel, TrainingSummary
except ImportError as error:
    raise ImportError(
        f"torrefy.spark needs pyspark with its JVM, and pyarrow ({error}): "
        "pip install 'torrefy[spark]'"
    ) from error

__all__ = ["CaffeEstimator", "CaffeModel", "TrainingSummary"]

# Spark saves a stage with the name of its class, by which it is found again: this one lasts.
for _public in (CaffeEstimator, CaffeModel, TrainingSummary):
    _public.__module__ = __name__
