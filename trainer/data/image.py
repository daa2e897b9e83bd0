"""Decoding compressed images to the pixels that OpenCV, and so Caffe, sees."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.errors import DataError

Pixels = NDArray[np.uint8]

_FORMATS = ("PNG", "JPEG", "BMP")
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BIT_DEPTH_OFFSET = 24


def decode_image(encoded: bytes, *, force_color: bool = False, force_gray: bool = False) -> Pixels:
    """Decode a PNG, JPEG or BMP file.

    Args:
        encoded: The file.
        force_color: Three channels, whatever is stored.
        force_gray: One channel, whatever is stored: libpng's weights for PNG, the stored Y plane
            for JPEG, OpenCV's for BMP. Without either flag grey stays one channel, and an image
            with transparency has four.

    Shape: (C, H, W), channels in the order B, G, R, alpha.

    Raises:
        DataError: It is no such file, is damaged, or has 16 bits per channel.

    Differs from Caffe: the orientation tag of a JPEG is ignored, as by OpenCV before 3.1.

    Source: BVLC/caffe src/caffe/util/io.cpp, DecodeDatumToCVMat and DecodeDatumToCVMatNative.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
        _check_depth(image, encoded)
        if force_color:
            channels = _to_bgr(image)
        elif force_gray:
            channels = _to_gray(image)
        else:
            channels = _as_stored(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"expected a PNG, JPEG or BMP image; {len(encoded)} bytes cannot be decoded: {error}"
        ) from error
    return np.ascontiguousarray(np.atleast_3d(channels).transpose(2, 0, 1))


def _check_depth(image: Image.Image, encoded: bytes) -> None:
    # Pillow gives 16-bit colour as 8 bits without a word, so the file is asked.
    is_png16 = encoded.startswith(_PNG_SIGNATURE) and encoded[_PNG_BIT_DEPTH_OFFSET] == 16
    if is_png16 or image.mode not in _EIGHT_BIT_MODES:
        raise DataError("image data type must be unsigned byte; received 16 bits per channel")


def _as_stored(image: Image.Image) -> Pixels:
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return np.asarray(image.convert("RGBA"))[..., [2, 1, 0, 3]]
    return _to_bgr(image)


def _to_bgr(image: Image.Image) -> Pixels:
    if image.mode == "CMYK":
        return _cmyk_to_bgr(image)
    return np.asarray(image.convert("RGB"))[..., ::-1]


def _cmyk_to_bgr(image: Image.Image) -> Pixels:
    stored = 255 - np.asarray(image).astype(np.int32)
    black = stored[..., 3:]
    rgb = black - ((255 - stored[..., :3]) * black >> 8)
    return rgb[..., ::-1].astype(np.uint8)


def _to_gray(image: Image.Image) -> Pixels:
    if image.format == "JPEG":
        image.draft("L", image.size)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    bgr = _to_bgr(image).astype(np.int32)
    blue, green, red = bgr[..., 0], bgr[..., 1], bgr[..., 2]
    if image.format == "PNG":
        luma = 9797 * red + 19234 * green + 3737 * blue >> 15
    else:
        luma = 4899 * red + 9617 * green + 1868 * blue + 8192 >> 14
    return luma.astype(np.uint8)
