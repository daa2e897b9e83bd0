"""Resizing and decoding, compared with OpenCV itself."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from golden_cases import GOLDEN
from trainer.data.image import decode_image, read_image
from trainer.data.resize import resize

FLAGS = [({"force_color": True}, cv2.IMREAD_COLOR), ({"force_gray": True}, cv2.IMREAD_GRAYSCALE)]
PICTURES = sorted(
    path.relative_to(GOLDEN / "formats/pictures").as_posix()
    for path in (GOLDEN / "formats/pictures").rglob("*.*")
    if path.suffix != ".txt"
)
RANDOM = np.random.default_rng(1701)


def planes(picture: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.atleast_3d(picture).transpose(2, 0, 1).astype(np.int64)


def blocks(*shape: int) -> NDArray[np.uint8]:
    """Return random squares of 8 by 8 equal pixels."""
    return np.kron(RANDOM.integers(0, 256, shape, np.uint8), np.ones((8, 8, 1), np.uint8))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((31, 45), (24, 36)),
        ((90, 33), (8, 7)),
        ((17, 23), (70, 61)),
        ((20, 24), (10, 12)),
        ((20, 24), (20, 24)),
        ((1, 13), (5, 1)),
        ((9, 1), (4, 11)),
        ((1, 1), (3, 2)),
        ((300, 7), (1, 500)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_opencvs_to_the_bit(
    channels: int, old: tuple[int, int], new: tuple[int, int]
) -> None:
    picture = RANDOM.integers(0, 256, (channels, *old), np.uint8)
    wanted = cv2.resize(np.ascontiguousarray(picture.transpose(1, 2, 0)), new[::-1])
    got = resize(picture, *new)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, planes(wanted))


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("is_color", [True, False])
def test_files_are_read_as_opencv_reads_them(name: str, is_color: bool) -> None:
    file = GOLDEN / "formats/pictures" / name
    wanted = cv2.imread(str(file), cv2.IMREAD_COLOR if is_color else cv2.IMREAD_GRAYSCALE)
    got = read_image(file, is_color=is_color)
    assert got.shape == planes(wanted).shape
    # JPEG libraries may round differently.
    tolerance = 2 if file.suffix == ".jpg" else 0
    np.testing.assert_allclose(got.astype(int), planes(wanted), rtol=0, atol=tolerance)


def check(encoded: bytes, tolerances: tuple[int, int] = (0, 0)) -> None:
    """Compare colour and grey with OpenCV's."""
    for (ours, theirs), tolerance in zip(FLAGS, tolerances, strict=True):
        wanted = planes(cv2.imdecode(np.frombuffer(encoded, np.uint8), theirs))
        got = decode_image(encoded, **ours)
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got.astype(int), wanted, rtol=0, atol=tolerance)


def chunk(name: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + checksum


def png(pixels: NDArray[np.unsignedinteger], extra: bytes = b"") -> bytes:
    """Return a PNG file of 8 or 16 bits with more chunks, which Pillow would not write."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, kind, 0, 0, 0)
    rows = pixels.astype(pixels.dtype.newbyteorder(">"))
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = (chunk(b"IHDR", header), extra, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def gamma(value: int) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", value))


@pytest.mark.parametrize(
    "extra",
    [b"", chunk(b"sRGB", b"\0"), gamma(45455), gamma(60000), gamma(96000), gamma(0)],
    ids=["none", "sRGB", "0.45455", "0.6", "0.96", "0"],
)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_with_a_gamma_has_another_grey(channels: int, extra: bytes) -> None:
    check(png(RANDOM.integers(0, 256, (23, 19, channels), np.uint8), extra))


def test_equal_channels_of_a_png_with_a_gamma_stay_as_they_are() -> None:
    check(png(np.repeat(RANDOM.integers(0, 256, (23, 19, 1), np.uint8), 3, axis=2), gamma(45455)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_become_8(channels: int) -> None:
    pixels = RANDOM.integers(0, 2**16, (23, 19, channels), np.uint16)
    check(png(pixels), tolerances=(0, 1 if channels > 2 else 0))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_tag_says(file_format: str, orientation: int) -> None:
    tags = Image.Exif()
    tags[0x112] = orientation
    file = io.BytesIO()
    Image.fromarray(blocks(3, 5, 3)).save(file, file_format, exif=tags, quality=95)
    tolerance = 0 if file_format in ("PNG", "TIFF") else 2
    check(file.getvalue(), (tolerance, tolerance))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("tags", [b"II*\0\x08\0\0\0\xff\xff", b"II*\0", b"neither II nor MM"])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_damaged_tags_are_passed_over(file_format: str, tags: bytes) -> None:
    file = io.BytesIO()
    Image.fromarray(blocks(3, 5, 3)).save(file, file_format, exif=b"Exif\0\0" + tags)
    assert decode_image(file.getvalue(), force_color=True).shape == (3, 24, 40)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "PPM", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "1"])
def test_kinds_of_files_are_decoded_as_opencv_does(
    file_format: str, mode: str, tmp_path: Path
) -> None:
    file = tmp_path / f"picture.{file_format.lower()}"
    Image.fromarray(blocks(3, 5, 3)).convert(mode).save(file, file_format)
    check(file.read_bytes())


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_palettes_are_applied(file_format: str) -> None:
    file = io.BytesIO()
    Image.fromarray(blocks(3, 5, 3)).convert("P").save(file, file_format)
    check(file.getvalue())
