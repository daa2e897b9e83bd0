"""Mean images: the binary `BlobProto` that Caffe's compute_image_mean writes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from prototxt_parser.atomic import atomic_write
from prototxt_parser.blobs import blob_to_tensor
from prototxt_parser.errors import LayerError
from prototxt_parser.proto import caffe_pb2
from trainer.data.database import DatabaseReader, open_database
from trainer.data.datum import Image, decode_datum, parse_datum
from trainer.errors import DataError

logger = logging.getLogger(__name__)

_LOG_INTERVAL = 10_000

MeanImage = NDArray[np.float32]


def read_mean(file: Path) -> MeanImage:
    """Read a mean image, with legacy or current dimensions.

    Shape: (C, H, W); in the file axes of size 1 may stand before.

    Raises:
        DataError: The file cannot be read or holds no mean image.
    """
    try:
        mean = blob_to_tensor(caffe_pb2.BlobProto.FromString(file.read_bytes())).float().numpy()
    except (OSError, DecodeError, LayerError) as error:
        raise DataError(
            f"{file}: expected a binary BlobProto with the mean image: {error}"
        ) from error
    if mean.ndim < 3 or mean.size != np.prod(mean.shape[-3:]) or not mean.size:
        raise DataError(
            f"{file}: expected a mean image of 1 x C x H x W; received the shape {mean.shape}"
        )
    return mean.reshape(mean.shape[-3:])


def compute_mean(database: Path, backend: str = "lmdb") -> MeanImage:
    """Return the mean of all images of a database, summed in float32 in database order.

    Differs from Caffe: images that have equally many values in other shapes are refused too.

    Raises:
        DataError: The images differ in size, or the database cannot be read.

    Source: BVLC/caffe tools/compute_image_mean.cpp, main.
    """
    reader = open_database(database, backend)
    try:
        logger.info("Starting iteration")
        total = _image(reader).astype(np.float32)
        for number in range(1, reader.count):
            if number % _LOG_INTERVAL == 0:
                logger.info("Processed %d files.", number)
            reader.advance()
            image = _image(reader)
            if image.shape != total.shape:
                raise DataError(
                    f"{database}: Incorrect data field size {image.size}: a mean needs images of"
                    f" one size; expected {total.shape}, received {image.shape} under key"
                    f" {reader.key!r}"
                )
            total += image
        logger.info("Processed %d files.", reader.count)
        return total / np.float32(reader.count)
    finally:
        reader.close()


def _image(reader: DatabaseReader) -> Image:
    try:
        return decode_datum(parse_datum(reader.value))
    except DataError as error:
        raise DataError(
            f"{reader.path}, key {reader.key!r}: {error}; convert the images again"
        ) from error


def write_mean(file: Path, mean: MeanImage) -> None:
    """Write a mean image (C, H, W) with legacy dimensions; all of it or nothing.

    Raises:
        WriteError: The file system refuses.

    Source: BVLC/caffe tools/compute_image_mean.cpp, main.
    """
    channels, height, width = mean.shape
    blob = caffe_pb2.BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.extend(mean.ravel().tolist())
    with atomic_write(file) as stream:
        stream.write(blob.SerializeToString())
