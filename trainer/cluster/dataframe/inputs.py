"""What a net is fed from outside, and how rows become its blobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from prototxt_parser.build import fed_specs
from prototxt_parser.data_spec import DataSpec
from prototxt_parser.definition import NetDefinition
from prototxt_parser.proto.caffe_pb2 import NetParameter, NetState, TransformationParameter
from prototxt_parser.shapes import Shape, count
from trainer.data.datum import Image
from trainer.data.image import decode_image
from trainer.data.mean_file import MeanImage, read_mean
from trainer.data.paths import find_data
from trainer.data.resize import resize
from trainer.data.transform import Transformer
from trainer.errors import DataError

# Data layers whose first top holds images that `transform_param` changes, and the second labels.
_IMAGE_LAYERS = ("Data", "ImageData", "MemoryData", "WindowData")


@dataclass(frozen=True)
class Fed:
    """A blob that a layer without bottoms fills: top `index` of the layer of `spec`."""

    blob: str
    spec: DataSpec
    index: int

    @property
    def is_image(self) -> bool:
        """Whether `transform_param` applies."""
        return self.index == 0 and self.spec.param.type in _IMAGE_LAYERS

    @property
    def batch_size(self) -> int:
        """Rows of a batch as the layer states them; 0 if it does not."""
        shape = self._stated
        return shape[0] if shape else self.spec.batch_size

    def row_shape(self, data_dir: Path | None) -> Shape | None:
        """Return the shape of a row as far as the definition states it, else None."""
        if self._stated:
            return self._stated[1:]
        if self.spec.param.type in _IMAGE_LAYERS and self.index:
            return ()
        memory = self.spec.param.memory_data_param
        if self.spec.param.type == "MemoryData":
            return memory.channels, memory.height, memory.width
        mean = self.mean(data_dir)
        return None if mean is None else mean.shape

    def mean(self, data_dir: Path | None) -> MeanImage | None:
        """Read the image of `transform_param.mean_file`, if that counts here."""
        name = self.spec.param.transform_param.mean_file
        return read_mean(find_data(name, data_dir)) if self.is_image and name else None

    @property
    def _stated(self) -> Shape:
        if self.spec.param.type != "Input":
            return ()
        shapes = self.spec.param.input_param.shape
        return tuple(shapes[min(self.index, len(shapes) - 1)].dim) if shapes else ()


def fed_blobs(definition: NetDefinition, state: NetState) -> list[Fed]:
    """Return the blobs that a net is fed in a state, in its order."""
    specs = fed_specs(definition, state)
    return [Fed(top, spec, index) for spec in specs for index, top in enumerate(spec.tops)]


@dataclass(frozen=True)
class Labels:
    """What labels are allowed: whole numbers below `classes`, and `ignored`."""

    classes: int
    ignored: int | None = None


@dataclass(frozen=True)
class Input:
    """How one blob is made of the rows of a column.

    Attributes:
        blob: Its name.
        shape: Of a row, before the transform.
        transform: Crop, mirror, mean and scale; None for rows that are taken as they are.
        mean: The image of `transform.mean_file`.
        phase: By which the transform behaves.
        is_color: Decode images to three channels (True), to one (False), or as they are (None).
        size: Height and width to which decoded images are resized; () for none.
        labels: What the rows may be; None for anything.
    """

    blob: str
    shape: Shape
    transform: TransformationParameter | None = field(default=None, compare=False)
    mean: MeanImage | None = field(default=None, compare=False)
    phase: int = 0
    is_color: bool | None = None
    size: tuple[int, int] | tuple[()] = ()
    labels: Labels | None = None

    @property
    def row_size(self) -> int:
        """Values of a row."""
        return count(self.shape)

    @property
    def varies(self) -> bool:
        """Whether images may be of several sizes, because they are cropped to one."""
        return self.transform is not None and self.transform.crop_size > 0

    def top_shape(self, batch_size: int) -> Shape:
        """Return the shape of the blob.

        Raises:
            DataError: Rows do not fit the transform's settings.
        """
        if self.transform is None:
            return (batch_size, *self.shape)
        if len(self.shape) != 3:
            raise DataError(f"expected rows of 3 axes, C, H and W; received {self.shape}")
        row = np.broadcast_to(np.uint8(0), self.shape)
        return (batch_size, *self.transformer().output_shape(row))

    def decode(self, encoded: bytes) -> Image:
        """Return the image of a row that holds an image file.

        Raises:
            DataError: It cannot be decoded, or comes out in another shape.
        """
        image = self.open_image(encoded)
        expected, received = self.shape, image.shape
        if received[:1] != expected[:1] or (received != expected and not self.varies):
            raise DataError(f"expected an image of the shape {expected}; received {received}")
        return image

    def open_image(self, encoded: bytes) -> Image:
        """Return the image of an image file, of whatever shape.

        Raises:
            DataError: It cannot be decoded.
        """
        wants = self.is_color
        image = decode_image(encoded, force_color=wants is True, force_gray=wants is False)
        return resize(image, *self.size) if self.size else image

    def transformer(self, seed: int = 0, stream: int = 0) -> Transformer:
        """Return what changes images as the layer would."""
        param = self.transform or TransformationParameter()
        return Transformer(param, self.phase, self.mean, seed=seed, stream=stream)


def make_input(fed: Fed, shape: Shape, data_dir: Path | None) -> Input:
    """Return how a blob is made of rows of a shape, with the layer's settings.

    Raises:
        DataError: The mean file cannot be read.
    """
    if not fed.is_image:
        return Input(fed.blob, shape, phase=fed.spec.phase)
    param, is_color, size = fed.spec.param, None, ()
    transform = param.transform_param
    if transform.force_color or transform.force_gray:
        is_color = transform.force_color
    found = Input(fed.blob, shape, transform, fed.mean(data_dir), fed.spec.phase, is_color, size)
    if param.type == "ImageData":
        images = param.image_data_param
        resized = (images.new_height, images.new_width)
        found = replace(found, is_color=images.is_color, size=resized if all(resized) else ())
    return found


@final
class BlobMaker:
    """Makes blobs of rows, as the net's data layers would.

    Args:
        inputs: One per blob.
        seed: Of crops and mirrors.
        stream: Tells the users of one seed apart.
    """

    def __init__(self, inputs: Sequence[Input], seed: int = 0, stream: int = 0) -> None:
        self._inputs = inputs
        self._transformers = {
            each.blob: each.transformer(seed, stream)
            for each in inputs
            if each.transform is not None
        }

    def __call__(self, rows: Sequence[Sequence[Image]], first_item: int) -> Mapping[str, Tensor]:
        """Return a batch by blob name.

        Args:
            rows: For each input the rows of the batch.
            first_item: Number of the first row, on which crops and mirrors depend.
        """
        return {
            each.blob: torch.from_numpy(self._blob(each.blob, values, first_item))
            for each, values in zip(self._inputs, rows, strict=True)
        }

    def _blob(self, name: str, rows: Sequence[Image], first_item: int) -> np.ndarray:
        transformer = self._transformers.get(name)
        if transformer is not None:
            return transformer(rows, first_item)
        return np.stack(rows).astype(np.float32)


def with_fed_inputs(definition: NetDefinition) -> NetDefinition:
    """Return the net with Input layers, which a solver leaves to its caller, as data layers."""
    param = NetParameter()
    param.CopyFrom(definition.param)
    for layer in param.layer:
        if layer.type == "Input":
            layer.type = "HDF5Data"
            layer.ClearField("input_param")
    return NetDefinition(param, definition.path, definition.places)
