"""The class that users derive layers of their own from: `caffe.Layer`."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_parser.live_blob import Blob, BlobVec


class PythonLayerBase:
    """A layer written in Python; override the four methods.

    A net makes one object per layer, sets the attributes, calls `setup` once, `reshape` before
    every pass, `forward`, and `backward` if the layer runs backward.
    Source: caffe/include/caffe/layers/python_layer.hpp, PythonLayer.

    Attributes:
        param_str: Free text from the definition.
        phase: TRAIN (0) or TEST (1).
        blobs: Learned blobs; add them in `setup` with `self.blobs.add_blob(*shape)`.
        type: Always "Python".
    """

    type = "Python"

    def __init__(self, param_str: str, phase: int) -> None:
        self.param_str = param_str
        self.phase = phase
        self.blobs = BlobVec()

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Check the numbers of blobs, read `param_str`, add blobs. Nothing unless overridden."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give every top its shape, by `top[i].reshape(*dims)`."""
        raise NotImplementedError(f"{type(self).__name__} must define reshape(bottom, top)")

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Write `top[i].data`."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(bottom, top)")

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        """Write `bottom[i].diff` where `propagate_down[i]`, and add to the diffs of `blobs`."""
        raise NotImplementedError(
            f"{type(self).__name__} must define backward(top, propagate_down, bottom)"
        )
