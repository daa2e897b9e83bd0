"""Small databases and data layers for tests, made without the code under test."""

from collections.abc import Iterable
from pathlib import Path

import lmdb
import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from prototxt_parser.data_spec import DataSpec
from prototxt_parser.proto import caffe_pb2


def images(count: int, channels: int = 3, height: int = 5, width: int = 7) -> NDArray[np.uint8]:
    """Return random images that differ from each other."""
    shape = (count, channels, height, width)
    return np.random.default_rng(1701).integers(0, 256, shape, np.uint8)


def raw_datum(image: NDArray[np.uint8], label: int) -> bytes:
    channels, height, width = image.shape
    datum = caffe_pb2.Datum(
        channels=channels, height=height, width=width, data=image.tobytes(), label=label
    )
    return datum.SerializeToString()


def make_lmdb(path: Path, values: Iterable[bytes]) -> Path:
    """Write values under the keys 000, 001 and so on."""
    path.mkdir(parents=True)
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as put:
        for number, value in enumerate(values):
            put.put(b"%03d" % number, value)
    (path / "lock.mdb").unlink()
    return path


def make_image_lmdb(path: Path, pictures: NDArray[np.uint8]) -> Path:
    """Write images with the labels 0, 1, 2 and so on."""
    return make_lmdb(path, [raw_datum(image, label) for label, image in enumerate(pictures)])


def data_layer(
    source: Path | str,
    *,
    batch_size: int = 4,
    transform: str = "",
    data: str = "backend: LMDB",
    phase: str = "TRAIN",
    tops: str = 'top: "data" top: "label"',
) -> DataSpec:
    text = f"""
      name: "images" type: "Data" {tops}
      transform_param {{ {transform} }}
      data_param {{ source: "{source}" batch_size: {batch_size} {data} }}
    """
    param = text_format.Parse(text, caffe_pb2.LayerParameter())
    return DataSpec(param, caffe_pb2.Phase.Value(phase), "net.prototxt:3:1")
