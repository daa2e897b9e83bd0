"""A loss written in Python, which `linreg.prototxt` uses.

cd examples/pycaffe && torrefy time --model linreg.prototxt --allow-python-layer pyloss
"""

from __future__ import annotations

from collections.abc import Sequence

import caffe
import numpy as np


class EuclideanLossLayer(caffe.Layer):
    """Half the mean squared distance of two blobs, the mean over items; equals EuclideanLoss."""

    def setup(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        """Check that there are two bottoms."""
        if len(bottom) != 2:
            raise ValueError(f"expected two bottoms; received {len(bottom)}")

    def reshape(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        """Check the bottoms' sizes; the loss is one number."""
        if bottom[0].count != bottom[1].count:
            raise ValueError(f"expected bottoms of one size; {bottom[0].count}, {bottom[1].count}")
        self.difference = np.zeros_like(bottom[0].data)
        top[0].reshape(1)

    def forward(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        """Compute the loss and keep the difference for `backward`."""
        self.difference[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.difference**2) / bottom[0].num / 2

    def backward(
        self,
        top: Sequence[caffe.Blob],
        propagate_down: Sequence[bool],
        bottom: Sequence[caffe.Blob],
    ) -> None:
        """Push the bottoms together, by the weight that the loss has."""
        for i, sign in enumerate((1, -1)):
            if propagate_down[i]:
                bottom[i].diff[...] = sign * top[0].diff[0] * self.difference / bottom[i].num
