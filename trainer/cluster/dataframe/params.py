"""The Params of the estimator and of its model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import (
    HasFeaturesCol,
    HasLabelCol,
    HasMaxIter,
    HasPredictionCol,
    HasProbabilityCol,
    HasSeed,
    HasValidationIndicatorCol,
    HasWeightCol,
)

from prototxt_parser.text import did_you_mean
from trainer.errors import UsageError
from trainer.extensions import Extensions


def _to_columns(value: Any) -> dict[str, str]:
    """Convert a dict of blob to column, or a list of names that are both."""
    pairs = value if isinstance(value, Mapping) else {name: name for name in value}
    return {TypeConverters.toString(k): TypeConverters.toString(v) for k, v in pairs.items()}


def _to_shapes(value: Any) -> Any:
    """Convert the shape of a row, or a dict of blob to shape."""
    if isinstance(value, Mapping):
        return {TypeConverters.toString(k): TypeConverters.toListInt(v) for k, v in value.items()}
    return TypeConverters.toListInt(value)


def _to_settings(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected a dict of settings by name; received {value!r}")
    return {TypeConverters.toString(name): setting for name, setting in value.items()}


def _param(name: str, doc: str, convert: Any) -> Any:
    return Param(Params._dummy(), name, doc, typeConverter=convert)


class KeywordParams(Params):
    """Params that are set by keywords, in Python's spelling or in Spark's."""

    def setParams(self, **params: Any) -> Self:
        """Set Params by name: `num_workers=2` or `numWorkers=2`.

        Raises:
            UsageError: There is no such Param; the message names the nearest.
            TypeError: A value is of a wrong type.
        """
        for name, value in params.items():
            param = re.sub(r"_([a-z])", lambda found: found[1].upper(), name)
            if not self.hasParam(param):
                known = [each.name for each in self.params]
                hint = did_you_mean(param, known) or f"; expected one of {', '.join(known)}"
                raise UsageError(f'{type(self).__name__} has no Param "{name}"{hint}')
            if value is not None:
                self._set(**{param: value})
        return self


class PredictionParams(
    KeywordParams, HasFeaturesCol, HasLabelCol, HasPredictionCol, HasProbabilityCol
):
    """What the model needs, and the estimator hands on to it."""

    inputCols = _param(
        "inputCols",
        "column of every blob that the net is fed, as a dict, or a list of names that are both; "
        "instead of featuresCol, labelCol and weightCol.",
        _to_columns,
    )
    outputCols = _param(
        "outputCols", "blobs to add as columns of arrays: a dict of blob to column.", _to_columns
    )
    batchSize = _param(
        "batchSize",
        "rows of a batch; in training by default as many as the net says, in prediction 64.",
        TypeConverters.toInt,
    )
    layerModules = _param(
        "layerModules",
        "modules that register layer classes; they travel to the executors.",
        TypeConverters.toListString,
    )
    pythonLayers = _param(
        "pythonLayers", "modules that Python layers may name.", TypeConverters.toListString
    )

    def extensions(self) -> Extensions:
        """Return the user's modules."""
        names = (self.layerModules, self.pythonLayers)
        layers, python = (
            tuple(self.getOrDefault(name)) if self.isDefined(name) else () for name in names
        )
        return Extensions(layers, python)

    def optional(self, param: Any) -> Any:
        """Return the value of a Param, None if it has none."""
        return self.getOrDefault(param) if self.isDefined(param) else None


class TrainingParams(
    PredictionParams, HasWeightCol, HasValidationIndicatorCol, HasMaxIter, HasSeed
):
    """What the estimator needs."""

    net = _param(
        "net",
        "net file, or the name of a shipped net; by default the one that the solver names.",
        TypeConverters.toString,
    )
    solver = _param(
        "solver",
        "solver file, or the name of a shipped one; by default the one beside the net.",
        TypeConverters.toString,
    )
    solverParams = _param(
        "solverParams",
        "settings of the solver by their names in the file, which they replace.",
        _to_settings,
    )
    baseLr = _param("baseLr", "base_lr instead of the solver's.", TypeConverters.toFloat)
    weightDecay = _param(
        "weightDecay", "weight_decay instead of the solver's.", TypeConverters.toFloat
    )
    strategy = _param("strategy", "how workers exchange what they learn.", TypeConverters.toString)
    strategyParams = _param(
        "strategyParams", "settings of the strategy by name, as in sync_interval.", _to_settings
    )
    runParams = _param(
        "runParams",
        "settings of the run by name, as in encryption, servers, overlap or straggler_s.",
        _to_settings,
    )
    numWorkers = _param("numWorkers", "tasks that train at once (>= 1).", TypeConverters.toInt)
    device = _param(
        "device", "PyTorch device of the workers: cpu or cuda.", TypeConverters.toString
    )
    inputShape = _param(
        "inputShape",
        "shape of a row of the features, such as [3, 32, 32]; or a dict of blob to shape.",
        _to_shapes,
    )
    dataDir = _param(
        "dataDir",
        "where to look for mean files that are not where the net says.",
        TypeConverters.toString,
    )
    forceRepartition = _param(
        "forceRepartition",
        "deal the rows to the workers anew even if there is a partition for each.",
        TypeConverters.toBoolean,
    )
