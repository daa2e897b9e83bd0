"""Decoding compressed images to the pixels that OpenCV, and so Caffe, sees."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from trainer.data.resize import Pixels, resize
from trainer.errors import DataError

_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BIT_DEPTH_OFFSET = 24
_SRGB_GAMMA = 0.45455


def read_image(file: Path, *, is_color: bool, height: int = 0, width: int = 0) -> Pixels:
    """Read an image file as colour or as grey, and resize it unless a size wanted is 0.

    Shape: (3, H, W), channels in the order B, G, R; or (1, H, W).

    Raises:
        DataError: The file cannot be read or decoded.

    Source: BVLC/caffe src/caffe/util/io.cpp, ReadImageToCVMat.
    """
    encoded = read_encoded(file)
    try:
        image = decode_image(encoded, force_color=is_color, force_gray=not is_color)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    return resize(image, height, width) if height and width else image


def read_encoded(file: Path) -> bytes:
    """Return the content of an image file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no path of a file at all
        raise DataError(f"{file} cannot be read: {error}") from error


def decode_image(encoded: bytes, *, force_color: bool = False, force_gray: bool = False) -> Pixels:
    """Decode an image file.

    Args:
        encoded: The file: PNG, JPEG, BMP, PPM, TIFF or WebP.
        force_color: Three channels of 8 bits, whatever is stored, turned as the file says.
        force_gray: One channel of 8 bits, turned so too: libpng's weights for PNG, the stored Y
            plane for JPEG, OpenCV's for others. Without either flag grey stays one channel, and an
            image with transparency has four.

    Shape: (C, H, W), channels in the order B, G, R, alpha.

    Raises:
        DataError: It is no such file, is damaged, or has 16 bits per channel and neither flag.

    Differs from Caffe: colours of 16 bits come out as grey from their high bytes, which may be one
    level less; a file that was cut off is an error, and not grey from there on.

    Source: BVLC/caffe src/caffe/util/io.cpp, DecodeDatumToCVMat and DecodeDatumToCVMatNative.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
        _check_depth(image, encoded, has_flag=force_color or force_gray)
        if force_color:
            channels = _to_bgr(_upright(image))
        elif force_gray:
            channels = _to_gray(image)
        else:
            channels = _as_stored(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        formats = "PNG, JPEG, BMP, PPM, TIFF or WebP"
        # Pillow's words for this one name an object of ours.
        reason = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        raise DataError(
            f"expected a {formats} image; {len(encoded)} bytes cannot be decoded{reason}"
        ) from error
    return np.ascontiguousarray(np.atleast_3d(channels).transpose(2, 0, 1))


def _check_depth(image: Image.Image, encoded: bytes, *, has_flag: bool) -> None:
    # Pillow gives 16-bit colour as 8 bits without a word, so the file is asked.
    is_png16 = encoded.startswith(_PNG_SIGNATURE) and encoded[_PNG_BIT_DEPTH_OFFSET] == 16
    if is_png16 and has_flag:
        return
    if is_png16 or image.mode not in _EIGHT_BIT_MODES:
        raise DataError("image data type must be unsigned byte; received 16 bits per channel")


def _upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its orientation tag says; a damaged tag says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except (struct.error, SyntaxError, TypeError, ValueError, KeyError):
        return image


def _as_stored(image: Image.Image) -> Pixels:
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return np.asarray(image.convert("RGBA"))[..., [2, 1, 0, 3]]
    return _to_bgr(image)


def _to_bgr(image: Image.Image) -> Pixels:
    if image.mode == "CMYK":
        return _cmyk_to_bgr(image)
    if image.mode not in _EIGHT_BIT_MODES:
        return np.repeat(_high_bytes(image)[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))[..., ::-1]


def _high_bytes(image: Image.Image) -> Pixels:
    return (np.asarray(image) >> 8).astype(np.uint8)


def _cmyk_to_bgr(image: Image.Image) -> Pixels:
    stored = 255 - np.asarray(image).astype(np.int32)
    black = stored[..., 3:]
    rgb = black - ((255 - stored[..., :3]) * black >> 8)
    return rgb[..., ::-1].astype(np.uint8)


def _to_gray(image: Image.Image) -> Pixels:
    file_format = image.format
    if file_format == "JPEG":
        image.draft("L", image.size)
    image = _upright(image)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode not in _EIGHT_BIT_MODES:
        return _high_bytes(image)
    bgr = _to_bgr(image)
    if file_format == "PNG":
        return _libpng_gray(bgr, _SRGB_GAMMA if "srgb" in image.info else image.info.get("gamma"))
    blue, green, red = np.moveaxis(bgr.astype(np.int32), 2, 0)
    luma: Pixels = (4899 * red + 9617 * green + 1868 * blue + 8192 >> 14).astype(np.uint8)
    return luma


def _libpng_gray(bgr: Pixels, gamma: float | None) -> Pixels:
    """Return the grey that libpng makes; in light, not in levels, where the file states a gamma.

    Source: libpng pngrtran.c, png_do_rgb_to_gray; png.c, png_build_8bit_table.
    """
    weights = np.array([3737, 19234, 9797], np.int32)
    if not gamma or 0.95 <= gamma <= 1.05:
        weighted: Pixels = (bgr.astype(np.int32) @ weights >> 15).astype(np.uint8)
        return weighted
    to_light, from_light = _gamma_table(1 / gamma), _gamma_table(gamma)
    gray = from_light[to_light[bgr].astype(np.int32) @ weights + 16384 >> 15]
    is_gray = (bgr == bgr[..., :1]).all(axis=2)
    return np.where(is_gray, bgr[..., 0], gray)


def _gamma_table(exponent: float) -> NDArray[np.uint8]:
    return np.floor(255 * (np.arange(256) / 255) ** exponent + 0.5).astype(np.uint8)
