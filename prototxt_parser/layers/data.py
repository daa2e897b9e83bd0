"""Layers that read files: here only what they ask for, never the reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from prototxt_parser.data_spec import DataSpec
from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Arity, Layer, LayerContext, at_least, exactly
from prototxt_parser.layers.ignored import OLD_TRANSFORM, ignored
from prototxt_parser.layers.registry import register_layer
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape


class SourceLayer(Layer):
    """A layer whose tops come from outside the net, described by its `spec`.

    The shapes of its tops follow from the data, so `build_net` must be told them.
    """

    bottom_count = exactly(0)
    is_fed = True

    def __init__(
        self, param: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], context: LayerContext
    ) -> None:
        """Take the shapes of the tops from the context."""
        super().__init__(param, bottoms, context)
        missing = [top for top in param.top if top not in context.input_shapes]
        if missing:
            raise LayerError(
                f"the shape of {', '.join(missing)} depends on the data: give build_net "
                "input_shapes for it, or let the trainer open the source"
            )
        self.spec = DataSpec(param, context.phase)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the shapes of the data."""
        del bottoms
        return [self.context.input_shapes[top] for top in self.param.top]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Refuse: the net feeds this layer's tops itself."""
        raise LayerError(f"the net was run without data for {', '.join(self.param.top)}")


@final
@register_layer("Data")
class Data(SourceLayer):
    """Items of an LMDB or LevelDB in key order, wrapping at the end.

    Shape: nothing -> (batch_size, C, H, W) after the transform; (batch_size) labels.
    Differs from PyTorch: a DataLoader ends with a short batch, may shuffle, and knows no order of
    keys.
    Source: caffe/src/caffe/layers/data_layer.cpp, DataLayer.
    """

    param_fields = ("data_param", "transform_param")
    ignored_fields = ignored(
        "data_param",
        scale=OLD_TRANSFORM,
        mean_file=OLD_TRANSFORM,
        crop_size=OLD_TRANSFORM,
        mirror=OLD_TRANSFORM,
        rand_skip="as in Caffe since 1.0",
        force_encoded_color="as in Caffe since 1.0; transform_param.force_color does it",
    )
    top_count = Arity(1, 2)


@final
@register_layer("ImageData")
class ImageData(SourceLayer):
    """Image files that a text file lists with their labels, resized and transformed.

    Shape: nothing -> (batch_size, C, H, W) after the transform; (batch_size) labels.
    Differs from PyTorch: torchvision's ImageFolder takes labels from folders and gives R, G, B in
    0 to 1; its Resize keeps the aspect and filters before shrinking.
    Source: caffe/src/caffe/layers/image_data_layer.cpp, ImageDataLayer.
    """

    param_fields = ("image_data_param", "transform_param")
    ignored_fields = ignored(
        "image_data_param",
        scale=OLD_TRANSFORM,
        mean_file=OLD_TRANSFORM,
        crop_size=OLD_TRANSFORM,
        mirror=OLD_TRANSFORM,
    ) | ignored(
        "transform_param",
        force_color="as in Caffe, is_color decides",
        force_gray="as in Caffe, is_color decides",
    )
    top_count = exactly(2)


@final
@register_layer("HDF5Data")
class HDF5Data(SourceLayer):
    """Rows of datasets in HDF5 files that a text file lists; each top is the dataset of its name.

    `transform_param` is refused, as by Caffe.

    Shape: nothing -> (batch_size, the dataset's other axes) for each top.
    Differs from PyTorch: there is none like it.
    Source: caffe/src/caffe/layers/hdf5_data_layer.cpp, HDF5DataLayer.
    """

    param_fields = ("hdf5_data_param",)
    top_count = at_least(1)


@final
@register_layer("WindowData")
class WindowData(SourceLayer):
    """Windows of images, drawn at random: background ones, then those that show an object.

    Shape: nothing -> (batch_size, 3, crop_size, crop_size); (batch_size) labels, 0 for background.
    Differs from PyTorch: there is none like it; the nearest, torchvision's roi_align, works on
    features and not on pixels.
    Source: caffe/src/caffe/layers/window_data_layer.cpp, WindowDataLayer.
    """

    param_fields = ("window_data_param", "transform_param")
    ignored_fields = ignored(
        "window_data_param",
        mean_file=OLD_TRANSFORM,
        crop_size=OLD_TRANSFORM,
        mirror=OLD_TRANSFORM,
    ) | ignored(
        "transform_param",
        scale="as in Caffe, window_data_param.scale counts",
        force_color="as in Caffe: windows always have 3 channels",
        force_gray="as in Caffe: windows always have 3 channels",
    )
    top_count = exactly(2)
