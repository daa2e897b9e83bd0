"""Caffe's data transformer: crop, mirror, mean and scale, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from prototxt_parser.proto import caffe_pb2
from trainer.data.datum import Image
from trainer.data.draws import Draws, Words
from trainer.data.mean_file import MeanImage
from trainer.errors import DataError

Batch = NDArray[np.float32]


@final
class Transformer:
    """Turns decoded images into a batch: `(pixel - mean) * scale`, cropped and mirrored.

    A crop of side c is random in the TRAIN phase, else it starts at floor((H-c)/2), floor((W-c)/2).
    The mean image is read where the pixel comes from; mirroring comes last.

    Differs from Caffe: random numbers depend on nothing but the seed, the stream and the number
    of the item, so that a run can go on from any item. The distributions are Caffe's.

    Args:
        param: Caffe's settings.
        phase: TRAIN or TEST.
        mean: The image of `param.mean_file`, if that is set.
        seed: Of the random numbers.
        stream: Tells users of one seed apart.

    Raises:
        DataError: Settings that exclude each other.

    Source: BVLC/caffe src/caffe/data_transformer.cpp, Transform(const Datum&, Dtype*).
    """

    def __init__(
        self,
        param: caffe_pb2.TransformationParameter,
        phase: int,
        mean: MeanImage | None = None,
        *,
        seed: int = 0,
        stream: int = 0,
    ) -> None:
        if param.mean_file and param.mean_value:
            raise DataError("cannot specify mean_file and mean_value at the same time")
        if param.force_color and param.force_gray:
            raise DataError("cannot set both force_color and force_gray")
        self._param = param
        self._is_training = phase == caffe_pb2.TRAIN
        self._mean = mean
        self._mean_values = np.array(param.mean_value, np.float32).reshape(-1, 1, 1)
        self._scale = np.float32(param.scale)
        self._draws = Draws(seed, stream)

    def output_shape(self, image: Image) -> tuple[int, int, int]:
        """Return the shape (C, H, W) that `image` will have.

        Raises:
            DataError: The image does not fit the settings.
        """
        channels, height, width = image.shape
        crop = self._param.crop_size
        if crop > min(height, width):
            raise DataError(f"crop_size {crop} does not fit an image of {height} x {width}")
        if self._mean is not None and self._mean.shape != image.shape:
            raise DataError(
                f"mean_file {self._param.mean_file} must have the shape of the images before"
                f" cropping, {image.shape}; received {self._mean.shape}"
            )
        if len(self._mean_values) not in (0, 1, channels):
            raise DataError(
                f"specify either 1 mean_value or as many as channels: {channels};"
                f" received {len(self._mean_values)}"
            )
        return (channels, crop, crop) if crop else (channels, height, width)

    def __call__(self, images: Sequence[Image], first_item: int) -> Batch:
        """Transform the items numbered `first_item`, `first_item` + 1 and so on.

        Args:
            images: Of any size if they are cropped, else all of one; at least one.
            first_item: Counted from the beginning of the run, not of the database.

        Shape: images of (C, H, W) -> (N, C, H', W').

        Raises:
            DataError: Images do not fit the settings, or come out in different sizes.
        """
        shapes = [self.output_shape(image) for image in images]
        for shape in shapes:
            if shape != shapes[0]:
                raise DataError(
                    f"images of one batch must come out in one size; expected {shapes[0]},"
                    f" received {shape}: set crop_size, or batch_size 1"
                )
        words = self._draws.for_items(first_item, len(images))  # mirror, row, column, to spare
        windows = self._windows(images, shapes[0], words)
        batch = np.empty((len(images), *shapes[0]), np.float32)
        for row, image, window in zip(batch, images, windows, strict=True):
            row[:] = image[window]
        if self._mean is not None:
            for row, window in zip(batch, windows, strict=True):
                row -= self._mean[window]
        elif len(self._mean_values):
            batch -= self._mean_values
        if self._scale != 1:
            batch *= self._scale
        if self._param.mirror:
            mirrored = words[:, 0] % 2 == 1
            batch[mirrored] = batch[mirrored, ..., ::-1]
        return batch

    def _windows(
        self, images: Sequence[Image], shape: tuple[int, int, int], words: Words
    ) -> list[tuple[slice, slice, slice]]:
        every = slice(None)
        crop = self._param.crop_size
        if not crop:
            return [(every, every, every)] * len(images)
        windows = []
        for image, (_, row_word, column_word, _) in zip(images, words.tolist(), strict=True):
            rows, columns = image.shape[1] - crop, image.shape[2] - crop
            if self._is_training:
                top, left = row_word % (rows + 1), column_word % (columns + 1)
            else:
                top, left = rows // 2, columns // 2
            windows.append((every, slice(top, top + crop), slice(left, left + crop)))
        return windows
