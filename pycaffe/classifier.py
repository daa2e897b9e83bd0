"""A net that takes images of any size and says what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prototxt_parser.proto import caffe_pb2
from pycaffe import io
from pycaffe.image_size import Dims
from pycaffe.net import Net
from pycaffe.preprocessing import image_transformer

Array = NDArray[Any]


@final
class Classifier(Net):
    """An image classifier, in the TEST phase.

    Args:
        model_file: Deploy net, whose first input is images.
        pretrained_file: Its weights.
        image_dims: Height and width to resize images to before they are cropped; default: those of
            the net's input.
        mean, input_scale, raw_scale, channel_swap: See `io.Transformer`.

    Attributes:
        transformer: What makes images into inputs.
        image_dims: As given.
        crop_dims: Height and width of the net's input.

    Source: caffe/python/caffe/classifier.py.
    """

    def __init__(
        self,
        model_file: str,
        pretrained_file: str,
        image_dims: Dims | None = None,
        mean: Array | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, caffe_pb2.TEST, weights=pretrained_file)
        shape = tuple(self.blobs[self.inputs[0]].data.shape)
        self.transformer = image_transformer(
            self.inputs[0], shape, mean, input_scale, raw_scale, channel_swap
        )
        self.crop_dims = np.array(shape[2:])
        self.image_dims = self.crop_dims if image_dims is None else np.array(image_dims)

    def predict(self, inputs: Sequence[Array], oversample: bool = True) -> Array:
        """Return the first output for each image.

        Args:
            inputs: Images (H, W, K), such as `io.load_image` gives.
            oversample: Average over ten crops; else take the centre alone.

        Returns:
            (number of images, number of classes).

        Raises:
            ValueError: There are no images, or they are to be resized to less than the net takes.
        """
        if not len(inputs):
            raise ValueError("predict needs at least one image; received none")
        images = [io.resize_image(image, self.image_dims) for image in inputs]
        crops = io.oversample(images, self.crop_dims)
        if not oversample:
            crops = crops[4::10]  # of the ten, the fifth is the centre
        name = self.inputs[0]
        prepared = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        predictions: Array = self.forward_all(**{name: prepared})[self.outputs[0]]
        if oversample:
            predictions = predictions.reshape(len(inputs), 10, -1).mean(1)
        return predictions
