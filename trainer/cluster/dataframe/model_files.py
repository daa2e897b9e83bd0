"""A trained net as files, in any file system that Spark reaches."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from prototxt_parser.files import read_net
from prototxt_parser.proto.caffe_pb2 import NetParameter, TransformationParameter
from prototxt_parser.text import parse_text, print_text
from trainer.cluster.dataframe.heads import Head
from trainer.cluster.dataframe.inputs import Input
from trainer.cluster.java_errors import first_line
from trainer.data.mean_file import read_mean, write_mean
from trainer.errors import DataError

_WEIGHTS, _NET, _SOLVER, _DEPLOY = (
    "weights.caffemodel",
    "net.prototxt",
    "solver.prototxt",
    "deploy.prototxt",
)


@dataclass(frozen=True)
class Deployed:
    """What predicts.

    Attributes:
        net: In deploy form: Input layers, what follows, and probabilities.
        inputs: How the blobs of its Input layers are made.
        head: Where predictions come from; None if no loss says that.
    """

    net: NetParameter
    inputs: tuple[Input, ...]
    head: Head | None


@dataclass(frozen=True)
class TrainedNet:
    """All that a model holds besides its Params.

    Attributes:
        net: The net that was trained, as prototxt.
        solver: The solver, as prototxt.
        weights: A caffemodel.
        deployed: What predicts.
    """

    net: str
    solver: str
    weights: bytes
    deployed: Deployed


def describe(trained: TrainedNet) -> dict[str, Any]:
    """Return what no file of Caffe's holds, as JSON values."""
    head = trained.deployed.head
    return {
        "inputs": [_described(each) for each in trained.deployed.inputs],
        "head": None if head is None else asdict(head),
    }


def save_files(trained: TrainedNet, path: str, spark: SparkSession) -> None:
    """Write the files into the folder `path`, which is there.

    Raises:
        DataError: The file system refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder)
        (local / _WEIGHTS).write_bytes(trained.weights)
        (local / _NET).write_text(trained.net, encoding="utf-8")
        (local / _SOLVER).write_text(trained.solver, encoding="utf-8")
        (local / _DEPLOY).write_text(print_text(trained.deployed.net), encoding="utf-8")
        for each in trained.deployed.inputs:
            if each.mean is not None:
                write_mean(local / _mean_file(each.blob), each.mean)
        with _named_errors("written to", path):
            files, target = _file_system(path, spark)
            for file in sorted(local.iterdir()):
                files.copyFromLocalFile(False, True, _java_path(str(file), spark), target)


def load_files(path: str, described: Mapping[str, Any], spark: SparkSession) -> TrainedNet:
    """Read what `save_files` has written; `described` is what `describe` returned.

    Raises:
        DataError: A file is missing or damaged.
        PrototxtError: The same, of a prototxt.
    """
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder)
        with _named_errors("read from", path):
            for name in _names(described["inputs"]):
                source = _java_path(f"{path}/{name}", spark)
                files, _ = _file_system(path, spark)
                files.copyToLocalFile(False, source, _java_path(str(local / name), spark), True)
        inputs = tuple(_input(each, local) for each in described["inputs"])
        head = described["head"] and Head(**described["head"])
        return TrainedNet(
            (local / _NET).read_text(encoding="utf-8"),
            (local / _SOLVER).read_text(encoding="utf-8"),
            (local / _WEIGHTS).read_bytes(),
            Deployed(read_net(local / _DEPLOY).param, inputs, head),
        )


def _names(inputs: Sequence[Mapping[str, Any]]) -> list[str]:
    means = [_mean_file(each["blob"]) for each in inputs if each["has_mean"]]
    return [_WEIGHTS, _NET, _SOLVER, _DEPLOY, *means]


def _mean_file(blob: str) -> str:
    return f"mean_{blob.replace('/', '_')}.binaryproto"


def _described(each: Input) -> dict[str, Any]:
    return {
        "blob": each.blob,
        "shape": list(each.shape),
        "transform": None if each.transform is None else print_text(each.transform),
        "has_mean": each.mean is not None,
        "phase": each.phase,
        "is_color": each.is_color,
        "size": list(each.size),
    }


def _input(described: Mapping[str, Any], folder: Path) -> Input:
    blob, text = described["blob"], described["transform"]
    transform = None
    if text is not None:
        transform = parse_text(text, TransformationParameter(), f"transform of {blob}")
    return Input(
        blob,
        tuple(described["shape"]),
        transform,
        read_mean(folder / _mean_file(blob)) if described["has_mean"] else None,
        described["phase"],
        described["is_color"],
        tuple(described["size"]),
    )


def _file_system(path: str, spark: SparkSession) -> tuple[Any, Any]:
    target = _java_path(path, spark)
    java: Any = spark
    return target.getFileSystem(java._jsparkSession.sessionState().newHadoopConf()), target


def _java_path(path: str, spark: SparkSession) -> Any:
    java: Any = spark.sparkContext
    return java._jvm.org.apache.hadoop.fs.Path(path)


@contextmanager
def _named_errors(what: str, path: str) -> Iterator[None]:
    try:
        yield
    except (Py4JError, PySparkException) as error:
        raise DataError(f"{path}: the model cannot be {what} there: {first_line(error)}") from error
