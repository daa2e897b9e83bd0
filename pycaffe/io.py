"""Blobs, datums and images as NumPy arrays, and what is done to images before a net sees them.

Source: caffe/python/caffe/io.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from prototxt_parser.blobs import blob_to_tensor
from prototxt_parser.errors import LayerError
from prototxt_parser.proto import caffe_pb2
from pycaffe.image_size import Dims, Image
from pycaffe.image_size import resize_image as resize_image

Array = NDArray[Any]

_LUMINANCE = np.array([0.2125, 0.7154, 0.0721])
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I")


def blobproto_to_array(blob: caffe_pb2.BlobProto, return_diff: bool = False) -> NDArray[np.float64]:
    """Return the values of a blob, or its diff, in its legacy shape if it has one.

    Raises:
        ValueError: The number of values is not that of the shape.
    """
    try:
        return blob_to_tensor(blob, diff=return_diff).double().numpy()
    except LayerError as error:
        raise ValueError(str(error)) from error


def array_to_blobproto(arr: Array, diff: Array | None = None) -> caffe_pb2.BlobProto:
    """Return a blob with the shape and values of `arr`, and a diff."""
    blob = caffe_pb2.BlobProto(shape=caffe_pb2.BlobShape(dim=arr.shape))
    blob.data.extend(arr.astype(float).flat)
    if diff is not None:
        blob.diff.extend(diff.astype(float).flat)
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[Array]) -> bytes:
    """Return a serialized BlobProtoVector of arrays."""
    blobs = [array_to_blobproto(arr) for arr in arraylist]
    return caffe_pb2.BlobProtoVector(blobs=blobs).SerializeToString()


def blobprotovector_str_to_arraylist(serialized: bytes) -> list[NDArray[np.float64]]:
    """Return the arrays of a serialized BlobProtoVector."""
    vector = caffe_pb2.BlobProtoVector.FromString(serialized)
    return [blobproto_to_array(blob) for blob in vector.blobs]


def array_to_datum(arr: Array, label: int | None = None) -> caffe_pb2.Datum:
    """Return a datum of an array (C, H, W): bytes if it is uint8, else floats.

    Raises:
        ValueError: Another number of axes.
    """
    if arr.ndim != 3:
        raise ValueError(f"Incorrect array shape. Expected (C, H, W); received {arr.shape}")
    channels, height, width = arr.shape
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width)
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.astype(float).flat)
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: caffe_pb2.Datum) -> Array:
    """Return the array (C, H, W) of a datum: uint8 if it holds bytes, else float64.

    Raises:
        ValueError: It holds another number of values, or a compressed image.
    """
    if datum.encoded:
        raise ValueError(
            "the datum holds a compressed image; decode its data with an image library"
        )
    shape = (datum.channels, datum.height, datum.width)
    if datum.data:
        return np.frombuffer(datum.data, np.uint8).reshape(shape).copy()
    return np.array(datum.float_data, np.float64).reshape(shape)


def load_image(filename: str | Path, color: bool = True) -> Image:
    """Read an image file of any format that Pillow reads.

    Args:
        filename: The file.
        color: Three channels R, G, B, equal for a grey image; else one, the luminance.

    Returns:
        (H, W, 3) or (H, W, 1) in [0, 1]; transparency is dropped.
    """
    with PIL.Image.open(filename) as image:
        pixels = _pixels(image)
    is_grey = pixels.shape[2] == 1
    if color and is_grey:
        pixels = np.repeat(pixels, 3, axis=2)
    elif not color and not is_grey:
        pixels = pixels @ _LUMINANCE[:, np.newaxis]
    return pixels.astype(np.float32)


def _pixels(image: PIL.Image.Image) -> NDArray[np.float64]:
    """Return (H, W, 1 or 3) in [0, 1]."""
    if image.mode in _SIXTEEN_BIT_MODES:
        values = np.asarray(image) / 65535
    elif image.mode == "F":
        values = np.asarray(image, np.float64)
    else:
        is_grey = image.mode in ("1", "L", "LA", "La")
        values = np.asarray(image.convert("L" if is_grey else "RGB")) / 255
    return values[..., np.newaxis] if values.ndim == 2 else values


def oversample(images: Sequence[Array], crop_dims: Dims) -> Image:
    """Return ten crops of every image: the corners and the centre, then these mirrored.

    Args:
        images: Each (H, W, K), all of one size.
        crop_dims: Height and width of the crops.

    Returns:
        (10 · N, height, width, K); corners in the order top left, top right, bottom left, bottom
        right.

    Raises:
        ValueError: The images are smaller than the crops.
    """
    (height, width), (crop_height, crop_width) = images[0].shape[:2], map(int, crop_dims)
    bottom, right = height - crop_height, width - crop_width
    if min(bottom, right) < 0:
        raise ValueError(
            f"images of {height} x {width} have no crops of {crop_height} x {crop_width}"
        )
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = [im[y : y + crop_height, x : x + crop_width] for im in images for y, x in corners]
    stacked = np.stack(crops).reshape(len(images), 5, crop_height, crop_width, -1)
    both = np.concatenate([stacked, stacked[:, :, :, ::-1]], axis=1)
    return both.reshape(-1, *both.shape[2:]).astype(np.float32)


@final
class Transformer:
    """Images as files hold them, made into what the input blobs of a net expect, and back.

    For an ImageNet model that is transpose (2, 0, 1), channel_swap (2, 1, 0), raw_scale 255 and a
    mean of three values in the order B, G, R.

    Args:
        inputs: Shape (N, C, H, W) of each input blob, by its name.

    Raises (by every method):
        ValueError: The name is not that of an input, or a setting does not fit its shape.

    Differs from Caffe: the image given to `preprocess` is never changed.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.transpose: dict[str, tuple[int, ...]] = {}
        self.channel_swap: dict[str, tuple[int, ...]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def preprocess(self, in_: str, data: Array) -> Image:
        """Return (C, H, W) of an image (H', W', K).

        Resize if the size differs, transpose, swap channels, multiply by raw_scale, subtract the
        mean, multiply by input_scale.
        """
        shape = self._shape(in_)
        value = data.astype(np.float32)
        if value.shape[:2] != shape[2:]:
            value = resize_image(value, shape[2:])
        if in_ in self.transpose:
            value = value.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            value = value[list(self.channel_swap[in_])]
        value = value * np.float32(self.raw_scale.get(in_, 1))
        value = value - self.mean.get(in_, 0)
        return (value * np.float32(self.input_scale.get(in_, 1))).astype(np.float32)

    def deprocess(self, in_: str, data: Array) -> Image:
        """Return the image (H, W, K) of an input (C, H, W), or of a batch of one: the inverse."""
        shape = self._shape(in_)
        value = data.reshape(data.shape[-len(shape) + 1 :]) / self.input_scale.get(in_, 1)
        value = value + self.mean.get(in_, 0)
        value = value / self.raw_scale.get(in_, 1)
        if in_ in self.channel_swap:
            value = value[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            value = value.transpose(np.argsort(self.transpose[in_]))
        return value.astype(np.float32)

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of axes: (2, 0, 1) makes (H, W, K) into (K, H, W)."""
        if len(order) != len(self._shape(in_)) - 1:
            raise ValueError(
                "Transpose order needs to have the same number of dimensions as the input."
            )
        self.transpose[in_] = tuple(order)

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of channels: (2, 1, 0) makes R, G, B into B, G, R."""
        if len(order) != self._shape(in_)[1]:
            raise ValueError(
                "Channel swap needs to have the same number of dimensions as the input channels."
            )
        self.channel_swap[in_] = tuple(order)

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Set the factor before the mean is subtracted: 255 makes [0, 1] into [0, 255]."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: Array) -> None:
        """Set what to subtract: a value per channel, or an image (C, H, W), resized if need be."""
        shape = self._shape(in_)
        mean = np.asarray(mean)
        if mean.ndim == 1:
            if len(mean) != shape[1]:
                raise ValueError("Mean channels incompatible with input.")
            mean = mean[:, np.newaxis, np.newaxis]
        else:
            mean = mean[np.newaxis] if mean.ndim == 2 else mean
            if mean.ndim != 3:
                raise ValueError(f"Mean shape invalid: expected (C, H, W); received {mean.shape}")
            if len(mean) != shape[1]:
                raise ValueError("Mean shape incompatible with input shape.")
            if mean.shape != shape[1:]:
                mean = resize_image(mean.transpose(1, 2, 0), shape[2:]).transpose(2, 0, 1)
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Set the factor after the mean is subtracted."""
        self._shape(in_)
        self.input_scale[in_] = scale

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise ValueError(f"{in_} is not one of the net inputs: {self.inputs}")
        return self.inputs[in_]
