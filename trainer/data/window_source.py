"""The batches of one `WindowData` layer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prototxt_parser.data_spec import DataSpec
from trainer.data.draws import Draws
from trainer.data.image import decode_image, read_encoded
from trainer.data.paths import find_listed
from trainer.data.resize import Pixels
from trainer.data.source_base import Share, Source
from trainer.data.window_crop import Patch, cut_window
from trainer.data.window_file import Window, Windows, read_windows
from trainer.errors import DataError, UsageError

logger = logging.getLogger(__name__)


@final
class WindowSource(Source):
    """Draws windows of images with replacement: in each batch background first, then foreground.

    Crop, mirroring and mean are those of `transform_param`; the scale is `window_data_param.scale`,
    and `transform_param.scale` is ignored, as are the deprecated `mean_file`, `crop_size` and
    `mirror` of `window_data_param`. What a crop shows beyond the image is 0, and so the mean. Every
    worker draws from all windows.

    Differs from Caffe: draws follow from the seed and the number of the item; `cache_images` keeps
    a file from its first use on.

    Source: BVLC/caffe src/caffe/layers/window_data_layer.cpp, DataLayerSetUp and load_batch.
    """

    def __init__(self, spec: DataSpec, share: Share) -> None:
        super().__init__(spec, share)
        self._param = spec.param.window_data_param
        self._crop = spec.param.transform_param.crop_size
        self._draws = Draws(self._share.seed, self._share.stream)
        self._cached: dict[int, bytes] = {}
        # Caffe multiplies in float32, which decides where the product is nearly whole.
        share_of_objects = np.float32(spec.batch_size) * np.float32(self._param.fg_fraction)
        self._background_count = spec.batch_size - int(share_of_objects)
        with self._named_errors():
            self._check()
            self._mean = self._mean_window()
            logger.info("Crop mode: %s", self._param.crop_mode)
            self._windows = read_windows(
                self._path, self._param.fg_threshold, self._param.bg_threshold
            )
            logger.info("Number of images: %d", len(self._windows.images))
            self._check_windows()
        self._begin = 0
        self._end = len(self._windows.foreground) + len(self._windows.background)
        data = (spec.batch_size, 3, self._crop, self._crop)
        logger.info("output data size: %d,%d,%d,%d", *data)
        self.shapes = dict(zip(spec.tops, (data, (spec.batch_size,)), strict=True))

    def _check(self) -> None:
        param = self._param
        if not self._crop:
            raise UsageError("transform_param.crop_size must be > 0; received 0")
        if 2 * param.context_pad >= self._crop:
            raise UsageError(
                f"context_pad must be less than half of crop_size {self._crop}; received"
                f" {param.context_pad}"
            )
        if not 0 <= param.fg_fraction <= 1:
            raise UsageError(f"fg_fraction must be 0 to 1; received {param.fg_fraction:g}")

    def _mean_window(self) -> NDArray[np.float32]:
        """Return what is subtracted from a crop, (3 or 1, crop, crop) or broadcast to it."""
        transform, crop = self._spec.param.transform_param, self._crop
        if transform.mean_file and transform.mean_value:
            raise DataError("Cannot specify mean_file and mean_value at the same time")
        if len(transform.mean_value) not in (0, 1, 3):
            raise DataError(
                "Specify either 1 mean_value or as many as channels: 3; received"
                f" {len(transform.mean_value)}"
            )
        mean = self._read_mean()
        if mean is None:
            return np.array(transform.mean_value or [0], np.float32).reshape(-1, 1, 1)
        # As in Caffe the width gives the place in both directions.
        first = (mean.shape[2] - crop) // 2
        window = mean[:, max(first, 0) : first + crop, max(first, 0) : first + crop]
        if window.shape != (3, crop, crop):
            raise DataError(
                f"mean_file {transform.mean_file} must have 3 channels and hold a window of"
                f" crop_size {crop} from row and column {first} on; received the shape {mean.shape}"
            )
        return window

    def _check_windows(self) -> None:
        objects = self._spec.batch_size - self._background_count
        for count, windows, what in (
            (self._background_count, self._windows.background, "background"),
            (objects, self._windows.foreground, "foreground"),
        ):
            if count and not len(windows):
                raise DataError(
                    f"{self._path}: expected {what} windows, {count} for each batch; received none:"
                    " correct fg_threshold, bg_threshold or fg_fraction"
                )

    def _tops(self) -> Sequence[Tensor]:
        count = self._spec.batch_size
        data = np.zeros((count, 3, self._crop, self._crop), np.float32)
        labels = np.zeros(count, np.float32)
        for row, words in enumerate(self._draws.for_items(self._item, count).tolist()):
            window = self._window(row, words[0])
            labels[row] = window.label
            self._draw(data[row], self._patch(window, is_mirrored=bool(words[1] % 2)))
        return torch.from_numpy(data), torch.from_numpy(labels)

    def _window(self, row: int, word: int) -> Window:
        windows: Windows = self._windows.foreground
        if row < self._background_count:
            windows = self._windows.background
        return windows[word % len(windows)]

    def _patch(self, window: Window, *, is_mirrored: bool) -> Patch:
        try:
            return cut_window(
                self._image(window.image),
                window,
                crop=self._crop,
                context_pad=self._param.context_pad,
                is_square=self._param.crop_mode == "square",
                is_mirrored=is_mirrored and self._spec.param.transform_param.mirror,
            )
        except DataError as error:
            name = self._windows.images[window.image]
            raise DataError(f"{self._path}:{window.line}: image {name}: {error}") from error

    def _image(self, number: int) -> Pixels:
        encoded = self._cached.get(number)
        if encoded is None:
            name = self._windows.images[number]
            file = find_listed(self._param.root_folder, name, self._share.data_dir)
            encoded = read_encoded(file)
            if self._param.cache_images:
                self._cached[number] = encoded
        return decode_image(encoded, force_color=True)

    def _draw(self, crop: NDArray[np.float32], patch: Patch) -> None:
        """Put a patch less the mean, times the scale, into its place in a crop."""
        _, height, width = patch.pixels.shape
        place = np.s_[:, patch.top : patch.top + height, patch.left : patch.left + width]
        mean = np.broadcast_to(self._mean, crop.shape)[place]
        crop[place] = (patch.pixels - mean) * np.float32(self._param.scale)
