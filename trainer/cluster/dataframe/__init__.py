"""Training on, and prediction of, the rows of Spark's DataFrames."""

from trainer.cluster.dataframe.estimator import CaffeEstimator
from trainer.cluster.dataframe.model import CaffeModel
from trainer.cluster.dataframe.summary import TrainingSummary

__all__ = ["CaffeEstimator", "CaffeModel", "TrainingSummary"]
