"""The batches of one `ImageData` layer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from prototxt_parser.data_spec import DataSpec
from trainer.data.draws import Draws
from trainer.data.image import read_image
from trainer.data.image_list import ListedImage, read_image_list
from trainer.data.paths import find_listed
from trainer.data.resize import Pixels
from trainer.data.source_base import Share, Source
from trainer.data.transform import Transformer
from trainer.errors import DataError, UsageError

logger = logging.getLogger(__name__)


@final
class ImageSource(Source):
    """Reads, resizes and transforms image files in the order of a list, or shuffled.

    Each of several workers reads its own part of the list in the TRAIN phase, shuffled in itself,
    and all of it in the TEST phase. As in Caffe the deprecated `scale`, `mean_file`, `crop_size`
    and `mirror` of `image_data_param` are ignored.

    Differs from Caffe: the order of an epoch and the images that `rand_skip` passes over follow
    from the seed; workers do not all read the whole list; a truncated image is an error, where
    OpenCV leaves the rest of it grey.

    Source: BVLC/caffe src/caffe/layers/image_data_layer.cpp, DataLayerSetUp and load_batch.
    """

    def __init__(self, spec: DataSpec, share: Share) -> None:
        super().__init__(spec, share)
        self._param = spec.param.image_data_param
        share = self._share
        self._draws = Draws(share.seed, share.stream)
        with self._named_errors():
            self._check_size()
            self._transform = Transformer(
                spec.param.transform_param,
                spec.phase,
                self._read_mean(),
                seed=share.seed,
                stream=share.stream,
            )
            listed = read_image_list(self._path)
            logger.info("A total of %d images.", len(listed))
            self._begin, self._end = share.part_of(self._path, len(listed))
            self._listed = listed[self._begin : self._end]
            self._skipped = self._skip()
            self._epoch, self._order = 0, self._order_of(0)
            image = self._read(self._listed_at(0))
            data = (spec.batch_size, *self._transform.output_shape(image))
        logger.info("output data size: %d,%d,%d,%d", *data)
        self.shapes = dict(zip(spec.tops, (data, (spec.batch_size,)), strict=True))

    def _check_size(self) -> None:
        height, width = self._param.new_height, self._param.new_width
        if (height > 0) != (width > 0):
            raise UsageError(
                "new_height and new_width must be set at the same time; received new_height"
                f" {height}, new_width {width}"
            )

    def _skip(self) -> int:
        if not self._param.rand_skip:
            return 0
        skipped = self._draws.start(self._param.rand_skip)
        logger.info("Skipping first %d data points.", skipped)
        if skipped >= len(self._listed):
            raise DataError(
                f"{self._path}: Not enough points to skip: rand_skip"
                f" {self._param.rand_skip} must be at most the number of images that this worker"
                f" reads, {len(self._listed)}"
            )
        return skipped

    def _order_of(self, epoch: int) -> Sequence[int]:
        count = len(self._listed)
        if not self._param.shuffle:
            return range(count)
        logger.info("Shuffling data")
        order: list[int] = self._draws.order(count, epoch).tolist()
        return order

    def _listed_at(self, item: int) -> ListedImage:
        epoch, place = divmod(self._skipped + item, len(self._listed))
        if epoch != self._epoch:
            logger.info("Restarting data prefetching from start.")
            self._epoch, self._order = epoch, self._order_of(epoch)
        return self._listed[self._order[place]]

    def _read(self, listed: ListedImage) -> Pixels:
        param = self._param
        try:
            return read_image(
                find_listed(param.root_folder, listed.name, self._share.data_dir),
                is_color=param.is_color,
                height=param.new_height,
                width=param.new_width,
            )
        except DataError as error:
            raise DataError(
                f"{self._path}:{listed.line}: Could not load {listed.name}: {error}"
            ) from error

    def _tops(self) -> Sequence[Tensor]:
        items = range(self._item, self._item + self._spec.batch_size)
        listed = [self._listed_at(item) for item in items]
        images = [self._read(each) for each in listed]
        try:
            data = torch.from_numpy(self._transform(images, self._item))
        except DataError as error:
            lines = ", ".join(str(each.line) for each in listed[:8])
            raise DataError(f"{self._path}, images of the lines {lines}: {error}") from error
        return data, torch.tensor([each.label for each in listed], dtype=torch.float32)
