"""A net that looks at windows of images, as R-CNN does."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prototxt_parser.errors import PrototxtError
from prototxt_parser.proto import caffe_pb2
from pycaffe import io
from pycaffe.net import Net
from pycaffe.preprocessing import image_transformer

Array = NDArray[Any]
Window = Sequence[float]  # ymin, xmin, ymax, xmax

_SELECTIVE_SEARCH = "selective_search_ijcv_with_python"


@final
class Detector(Net):
    """A classifier of windows, in the TEST phase.

    Args:
        model_file: Deploy net, whose first input is images.
        pretrained_file: Its weights.
        mean, input_scale, raw_scale, channel_swap: See `io.Transformer`.
        context_pad: Width of the border around a window, in pixels of the net's input, that shows
            what surrounds it; None or 0 for none.

    Attributes:
        transformer: What makes images into inputs.
        crop_dims: Shape (H, W, K) of the net's input.
        context_pad: As given.
        crop_mean: Image (H, W, K) that stands for what lies beyond an image.

    Source: caffe/python/caffe/detector.py.
    """

    def __init__(
        self,
        model_file: str,
        pretrained_file: str,
        mean: Array | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, caffe_pb2.TEST, weights=pretrained_file)
        shape = tuple(self.blobs[self.inputs[0]].data.shape)
        self.transformer = image_transformer(
            self.inputs[0], shape, mean, input_scale, raw_scale, channel_swap
        )
        self.configure_crop(context_pad)

    def configure_crop(self, context_pad: int | None) -> None:
        """Set the border around windows, and what fills it beyond an image: the mean.

        Raises:
            ValueError: The borders leave nothing of the net's input.
        """
        name = self.inputs[0]
        channels, height, width = self.transformer.inputs[name][1:]
        self.context_pad = context_pad or 0
        self.crop_dims = np.array((height, width, channels))
        if 2 * self.context_pad >= min(height, width):
            raise ValueError(
                f"context_pad {context_pad} leaves nothing of the {height} x {width} input"
            )
        self.crop_mean = np.zeros(self.crop_dims, np.float32)
        if name in self.transformer.mean:
            mean = np.broadcast_to(self.transformer.mean[name], (channels, height, width))
            unscaled = mean / self.transformer.raw_scale.get(name, 1)
            swap = self.transformer.channel_swap.get(name, range(channels))
            self.crop_mean[:] = unscaled[np.argsort(swap)].transpose(1, 2, 0)

    def detect_windows(
        self, images_windows: Iterable[tuple[str | Path, Iterable[Window]]]
    ) -> list[dict[str, Any]]:
        """Return a dict with `window`, `prediction` and `filename` for every window.

        Args:
            images_windows: Image files, and windows (ymin, xmin, ymax, xmax) in them.

        Raises:
            ValueError: There is no window, or one holds no pixel.
        """
        found: list[dict[str, Any]] = []
        crops = []
        for filename, windows in images_windows:
            image = io.load_image(filename)
            for window in windows:
                found.append({"window": window, "prediction": None, "filename": filename})
                crops.append(self.transformer.preprocess(self.inputs[0], self.crop(image, window)))
        if not crops:
            raise ValueError("detect_windows needs at least one window; received none")
        outputs = self.forward_all(**{self.inputs[0]: np.stack(crops)})
        for detection, prediction in zip(found, outputs[self.outputs[0]], strict=True):
            detection["prediction"] = prediction
        return found

    def detect_selective_search(self, image_fnames: Iterable[str | Path]) -> list[dict[str, Any]]:
        """Find windows with selective search, then do what `detect_windows` does.

        Raises:
            PrototxtError: The package that finds them (which drives MATLAB) is not installed.
        """
        try:
            search = importlib.import_module(_SELECTIVE_SEARCH)
        except ImportError:
            raise PrototxtError(
                f"selective search needs the package {_SELECTIVE_SEARCH}, which is not installed: "
                "install it, or find windows by other means and give them to detect_windows"
            ) from None
        files = [str(Path(name).absolute()) for name in image_fnames]
        windows = search.get_windows(files, cmd="selective_search_rcnn")
        return self.detect_windows(zip(files, windows, strict=True))

    def crop(self, im: Array, window: Window) -> Array:
        """Return the part of an image that a window shows.

        With `context_pad` it has the size of the net's input, and the window is its middle.

        Args:
            im: (H, W, K).
            window: ymin, xmin, ymax, xmax.

        Raises:
            ValueError: The part holds no pixel.
        """
        box = np.asarray(window, np.float64)
        if self.context_pad:
            return self._crop_with_context(im, box)
        top, left, bottom, right = box.astype(int)
        return _not_empty(im[top:bottom, left:right], window)

    def _crop_with_context(self, im: Array, window: NDArray[np.float64]) -> Array:
        size = self.crop_dims[:2]
        half = (window[2:] - window[:2] + 1) / 2
        reach = half * size / (size - 2 * self.context_pad)
        centre = window[:2] + half
        box = np.round(np.concatenate([centre - reach, centre + reach]))
        scale = size / (box[2:] - box[:2] + 1)
        limits = np.array(im.shape[:2])
        inside = np.clip(box, 0, np.tile(limits, 2))
        start = np.round(np.maximum(0, -box[:2]) * scale).astype(int)
        extent = np.round((inside[2:] - inside[:2] + 1) * scale).astype(int)
        extent = np.minimum(extent, size - start)
        top, left, bottom, right = inside.astype(int)
        context = _not_empty(im[top:bottom, left:right], window)
        crop = self.crop_mean.copy()
        place = tuple(
            slice(first, first + count) for first, count in zip(start, extent, strict=True)
        )
        crop[place] = io.resize_image(context, extent)
        return crop


def _not_empty(part: Array, window: Window | Array) -> Array:
    if not part.size:
        edges = ", ".join(f"{edge:g}" for edge in window)
        raise ValueError(f"window {edges} (ymin, xmin, ymax, xmax) holds no pixel")
    return part
