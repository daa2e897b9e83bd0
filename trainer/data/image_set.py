"""The entries of a database made of image files, as Caffe's convert_imageset makes them."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prototxt_parser.proto import caffe_pb2
from trainer.data.entries import Entry
from trainer.data.image import decode_image
from trainer.data.image_list import ListedImage
from trainer.data.resize import resize
from trainer.errors import DataError, UsageError

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

_LOG_INTERVAL = 1000
_LARGEST_ENTRY = 2**31 - 1  # protobuf's limit
_JPEG_QUALITY = 95  # OpenCV's
_PILLOW_FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "png": "PNG", "bmp": "BMP"}


@dataclass(frozen=True)
class Conversion:
    """How images become Datums.

    Attributes:
        gray: One channel instead of three.
        height: Rows of every image; 0, as `width` 0, keeps the sizes.
        width: Columns.
        check_size: Refuse images whose data is not as long as the first one's.
        encoded: Store compressed images.
        encode_type: Format of those, as an extension; "" goes by each file's name.

    Raises:
        UsageError: No such format, or no image of that size, can be written.
    """

    gray: bool = False
    height: int = 0
    width: int = 0
    check_size: bool = False
    encoded: bool = False
    encode_type: str = ""

    def __post_init__(self) -> None:
        if self.encode_type and self.encode_type.lower() not in _PILLOW_FORMATS:
            raise UsageError(
                f"-encode_type: expected one of {', '.join(_PILLOW_FORMATS)};"
                f" received {self.encode_type}"
            )
        if 3 * self.height * self.width > _LARGEST_ENTRY:
            raise UsageError(
                f"-resize_height {self.height}, -resize_width {self.width}: an image of a database"
                f" has at most {_LARGEST_ENTRY} bytes; choose a smaller size"
            )

    @property
    def resizes(self) -> bool:
        """Whether images get a new size."""
        return self.height > 0 and self.width > 0

    def extension(self, name: str) -> str:
        """Return the format in which image `name` is stored, "" for raw pixels."""
        if self.encode_type or not self.encoded:
            return self.encode_type
        return _extension(name)


def image_entries(
    root: str, images: Iterable[tuple[int, ListedImage]], conversion: Conversion
) -> Iterator[Entry]:
    """Yield a database entry for every image that can be read; the others are logged.

    Args:
        root: Comes before the path of every image, without a separator.
        images: Each with its number, which its key begins with.
        conversion: What to store.

    Differs from Caffe: a list of which no image can be read is refused; Caffe makes an empty
    database of it.

    Raises:
        DataError: No image can be read, one cannot be stored in the format that its name asks for,
            or, with `check_size`, one differs from the first in size.

    Source: BVLC/caffe tools/convert_imageset.cpp, main; src/caffe/util/io.cpp, ReadImageToDatum.
    """
    count = size = 0
    for number, image in images:
        try:
            stored, pixels = _read(Path(root + image.name), conversion)
        except (OSError, ValueError, DataError) as error:
            logger.error("Could not open or find file %s%s: %s", root, image.name, error)
            continue
        datum = _datum(stored, pixels, image, conversion)
        size = size if count else len(datum.data)
        if conversion.check_size and len(datum.data) != size:
            raise DataError(
                f"{root}{image.name}: Incorrect data field size {len(datum.data)}; the first image"
                f" has {size}: resize all to one size, or leave out -check_size"
            )
        yield f"{number:08d}_".encode() + os.fsencode(image.name), datum.SerializeToString()
        count += 1
        if count % _LOG_INTERVAL == 0:
            logger.info("Processed %d files.", count)
    if not count:
        raise DataError(f"{root}: none of the listed images can be read there; correct the folder")
    if count % _LOG_INTERVAL:
        logger.info("Processed %d files.", count)


def _read(file: Path, conversion: Conversion) -> tuple[bytes, Pixels]:
    """Return the content of an image file, and its pixels in the size that is wanted."""
    stored = file.read_bytes()
    pixels = decode_image(stored, force_color=not conversion.gray, force_gray=conversion.gray)
    if conversion.resizes:
        pixels = resize(pixels, conversion.height, conversion.width)
    return stored, pixels


def _datum(
    stored: bytes, pixels: Pixels, image: ListedImage, conversion: Conversion
) -> caffe_pb2.Datum:
    extension = conversion.extension(image.name)
    if not extension:
        channels, height, width = pixels.shape
        return caffe_pb2.Datum(
            channels=channels,
            height=height,
            width=width,
            data=pixels.tobytes(),
            label=image.label,
            encoded=False,
        )
    if conversion.height or conversion.width or not _is_stored_as(extension, image.name):
        if extension.lower() not in _PILLOW_FORMATS:
            raise DataError(
                f"{image.name}: expected a name that ends in one of {', '.join(_PILLOW_FORMATS)},"
                " or an -encode_type"
            )
        stored = _encode(pixels, _PILLOW_FORMATS[extension.lower()])
    return caffe_pb2.Datum(data=stored, label=image.label, encoded=True)


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _is_stored_as(extension: str, name: str) -> bool:
    found = _extension(name)
    return found == extension.lower() or (extension.lower(), found) == ("jpg", "jpeg")


def _encode(pixels: Pixels, pillow_format: str) -> bytes:
    """Return an image file of pixels (C, H, W), one channel or three in the order B, G, R."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels[::-1].transpose(1, 2, 0))
    stream = io.BytesIO()
    image.save(stream, pillow_format, quality=_JPEG_QUALITY)
    return stream.getvalue()
