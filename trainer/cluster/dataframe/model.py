"""`CaffeModel`: a trained net as a `pyspark.ml` Transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

from pyspark import Broadcast
from pyspark.ml import Model
from pyspark.ml.functions import array_to_vector
from pyspark.ml.util import (
    DefaultParamsReader,
    DefaultParamsWriter,
    MLReadable,
    MLReader,
    MLWritable,
    MLWriter,
)
from pyspark.sql import Column, DataFrame

from prototxt_parser.atomic import atomic_write
from prototxt_parser.definition import NetDefinition
from prototxt_parser.proto.caffe_pb2 import TEST, NetState
from prototxt_parser.text import did_you_mean
from trainer.cluster.dataframe.columns import Columns, call_in_arrow, check_session, column
from trainer.cluster.dataframe.model_files import TrainedNet, describe, load_files, save_files
from trainer.cluster.dataframe.nets import FrozenNet, Prediction
from trainer.cluster.dataframe.params import PredictionParams
from trainer.cluster.dataframe.summary import TrainingSummary
from trainer.cluster.shipping import ship
from trainer.errors import UsageError

_RESULT = "torrefy result"
_BATCH_SIZE = 64


@final
class CaffeModel(Model, PredictionParams, MLReadable["CaffeModel"], MLWritable):
    """Adds predictions, probabilities and any blobs of a net as columns. Made by `CaffeEstimator`.

    Attributes:
        summary: How the training went; None in a model that was loaded.
    """

    def __init__(self, trained: TrainedNet) -> None:
        super().__init__()
        self._setDefault(batchSize=_BATCH_SIZE)
        self._trained = trained
        self._broadcast: Broadcast[FrozenNet] | None = None
        self._application = ""
        self.summary: TrainingSummary | None = None

    @property
    def net(self) -> str:
        """The net that was trained, as prototxt."""
        return self._trained.net

    @property
    def solver(self) -> str:
        """The solver that it was trained with, as prototxt."""
        return self._trained.solver

    def save_caffemodel(self, path: str | Path) -> None:
        """Write the weights as a `.caffemodel` file of this machine, which Caffe reads.

        Raises:
            WriteError: The file system refuses.
        """
        with atomic_write(Path(path)) as file:
            file.write(self._trained.weights)

    def write(self) -> MLWriter:
        """Return a writer, as `model.write().overwrite().save(path)` needs one."""
        return _Writer(self)

    @classmethod
    def read(cls) -> MLReader[CaffeModel]:
        """Return a reader."""
        return _Reader(cls)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        """Add the columns.

        Raises:
            UsageError: A column or a blob is missing, or there is a column of a new one's name.
        """
        check_session(dataset)
        wanted = self._wanted()
        for name in wanted:
            if name in dataset.columns:
                raise UsageError(
                    f'the DataFrame has a column "{name}" already: name the new one otherwise, by '
                    "predictionCol, probabilityCol or outputCols"
                )
        if not wanted:
            return dataset
        deployed = self._trained.deployed
        size = self.getOrDefault(self.batchSize)
        udf = Prediction(self._shared(dataset), size, deployed.head, tuple(wanted.values()))
        chosen = self._columns().of([each.blob for each in deployed.inputs])
        full = dataset.withColumn(_RESULT, call_in_arrow(udf, udf.schema, dataset, chosen))
        new = [
            _field(name, want, field)
            for (name, want), field in zip(wanted.items(), udf.fields, strict=True)
        ]
        return full.select(*map(column, dataset.columns), *new)

    def _wanted(self) -> dict[str, str]:
        """Return what each new column holds, as `Prediction.wants`."""
        head = self._trained.deployed.head
        present = {
            "prediction": head is not None,
            "probability": head is not None and bool(head.probability),
        }
        params = {"prediction": self.predictionCol, "probability": self.probabilityCol}
        wanted: dict[str, str] = {}
        for want, param in params.items():
            name = self.getOrDefault(param)
            if name and not present[want] and self.isSet(param):
                raise UsageError(
                    f"{param.name}: the losses of this net say no {want} for a row; take the blob "
                    "that you need by outputCols"
                )
            if name and present[want]:
                wanted[name] = want
        for blob, name in (self.optional(self.outputCols) or {}).items():
            self._check_blob(blob)
            wanted[name] = f"blob:{blob}"
        return wanted

    def _check_blob(self, blob: str) -> None:
        known = sorted({top for layer in self._trained.deployed.net.layer for top in layer.top})
        if blob not in known:
            hint = did_you_mean(blob, known) or f"; it has {', '.join(known)}"
            raise UsageError(f'outputCols: the net that predicts has no blob "{blob}"{hint}')

    def _columns(self) -> Columns:
        by_blob = self.optional(self.inputCols)
        return Columns(self.getFeaturesCol(), self.getLabelCol(), by_blob=by_blob)

    def _shared(self, dataset: DataFrame) -> Broadcast[FrozenNet]:
        """Return the net where executors find it; it goes to each of them once."""
        context = dataset.sparkSession.sparkContext
        if self._broadcast is None or self._application != context.applicationId:
            ship(context, self.extensions())
            deployed = self._trained.deployed
            net = FrozenNet(
                NetDefinition(deployed.net),
                NetState(phase=TEST),
                deployed.inputs,
                self._trained.weights,
                self.extensions(),
            )
            self._broadcast = context.broadcast(net)
            self._application = context.applicationId
        return self._broadcast


def _field(name: str, want: str, field: str) -> Column:
    value = column(_RESULT).getField(field)
    return (array_to_vector(value) if want == "probability" else value).alias(name)


@final
class _Writer(MLWriter):
    """Writes Spark's metadata and, beside them, Caffe's files."""

    def __init__(self, model: CaffeModel) -> None:
        super().__init__()
        self._model = model

    def saveImpl(self, path: str) -> None:
        """Write all into the folder `path`."""
        spark = self.sparkSession
        trained = self._model._trained
        DefaultParamsWriter.saveMetadata(self._model, path, spark, {"caffe": describe(trained)})
        save_files(trained, path, spark)


@final
class _Reader(MLReader[CaffeModel]):
    """Reads what `_Writer` wrote."""

    def __init__(self, kind: type[CaffeModel]) -> None:
        super().__init__()
        self._kind = kind

    def load(self, path: str) -> CaffeModel:
        """Return the model in the folder `path`."""
        spark = self.sparkSession
        metadata: dict[str, Any] = DefaultParamsReader.loadMetadata(path, spark)
        model = self._kind(load_files(path, metadata["caffe"], spark))
        model._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(model, metadata)
        return model
