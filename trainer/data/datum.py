"""A `Datum`, the value of one database entry, as an array."""

from __future__ import annotations

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from prototxt_parser.proto import caffe_pb2
from trainer.data.image import decode_image
from trainer.errors import DataError

Image = NDArray[np.uint8] | NDArray[np.float32]


def parse_datum(value: bytes) -> caffe_pb2.Datum:
    """Return the message that a database value holds.

    Raises:
        DataError: The bytes are no Datum, or one without pixels.
    """
    try:
        datum = caffe_pb2.Datum.FromString(value)
    except DecodeError as error:
        raise DataError(f"expected a serialized Datum; {len(value)} bytes are none") from error
    if not datum.data and not datum.float_data:
        raise DataError(f"expected a Datum with pixels; {len(value)} bytes hold none")
    return datum


def decode_datum(
    datum: caffe_pb2.Datum, *, force_color: bool = False, force_gray: bool = False
) -> Image:
    """Return the image of a Datum; it may be a read-only view of the message.

    Args:
        datum: With raw bytes, floats or an encoded image.
        force_color: Decode to three channels; ignored unless the image is encoded.
        force_gray: Decode to one channel; ignored unless the image is encoded.

    Shape: (C, H, W), uint8, or float32 if the Datum holds floats.

    Raises:
        DataError: The number of values is not channels * height * width, or decoding failed.

    Source: BVLC/caffe src/caffe/data_transformer.cpp, Transform(const Datum&).
    """
    if datum.encoded:
        return decode_image(datum.data, force_color=force_color, force_gray=force_gray)
    values: Image
    if datum.data:
        values = np.frombuffer(datum.data, np.uint8)
    else:
        values = np.array(datum.float_data, np.float32)
    channels, height, width = datum.channels, datum.height, datum.width
    if min(channels, height, width) <= 0 or values.size != channels * height * width:
        raise DataError(
            f"expected channels * height * width = {channels} * {height} * {width} values"
            f" in the Datum; received {values.size}"
        )
    return values.reshape(channels, height, width)
