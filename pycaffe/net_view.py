"""What a net consists of, under the names that Caffe's scripts use.

Source: caffe/python/caffe/pycaffe.py, _Net_blobs and the other properties.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Self

from prototxt_parser.layers.python import Python
from prototxt_parser.live_blob import Blob, BlobVec
from prototxt_parser.live_layer import LiveLayer
from prototxt_parser.live_net import LiveNet
from prototxt_parser.python_layer import PythonLayerBase


@dataclass(frozen=True)
class NetLayer:
    """A layer of a net; a Python layer shows as the user's own object instead.

    Attributes:
        type: Caffe's type string.
        blobs: Its parameters.
    """

    type: str
    blobs: BlobVec


class NetView:
    """The blobs, parameters and layers of a live net by name and by number.

    Attributes:
        blobs: Every blob by name, in the order of creation, those of inserted Splits included.
        params: Parameters of every layer that has some, by layer name.
        layers: All layers.
        layer_dict: The same by name.
        blob_loss_weights: Loss weight of every blob, 0 for most.
        inputs: Names of the blobs of Input layers.
        outputs: Names of the blobs that no layer takes, in byte order.
        top_names: Names of every layer's tops.
        bottom_names: Names of every layer's bottoms, those of inserted Splits where there are any.
        live: The net itself.
    """

    @classmethod
    def of(cls, live: LiveNet, *, is_trained: bool = False) -> Self:
        """Return the interface of a net that there is; `is_trained` if a solver updates it."""
        net = cls.__new__(cls)
        net._adopt(live, is_trained=is_trained)
        return net

    def _adopt(self, live: LiveNet, *, is_trained: bool = False) -> None:
        self.live, self._is_trained = live, is_trained
        self.layers: list[NetLayer | PythonLayerBase] = [_layer(each) for each in live.live]
        self._layer_names = [each.step.param.name for each in live.live]
        self._blob_names = [name for name, _ in live.named_blobs]
        self._blobs = [blob for _, blob in live.named_blobs]
        self.blobs: OrderedDict[str, Blob] = OrderedDict(live.named_blobs)
        named = list(zip(self._layer_names, self.layers, strict=True))
        self.layer_dict = OrderedDict(named)
        self.params = OrderedDict((name, layer.blobs) for name, layer in named if layer.blobs)
        self.inputs, self.outputs = live.inputs, list(live.outputs)
        self._inputs = [self._blob_names.index(name) for name in self.inputs]
        self._outputs = [self._blob_names.index(name) for name in self.outputs]
        steps = [each.step for each in live.live]
        self.top_names = OrderedDict((step.param.name, list(step.tops)) for step in steps)
        self.bottom_names = OrderedDict((step.param.name, list(step.bottoms)) for step in steps)
        weights = live.loss_weights
        self.blob_loss_weights = OrderedDict((n, weights.get(n, 0.0)) for n in self._blob_names)

    def _top_ids(self, layer: int) -> list[int]:
        """Return the numbers of a layer's top blobs."""
        return [self._blob_id(blob) for blob in self.live.live[layer].tops]

    def _bottom_ids(self, layer: int) -> list[int]:
        """Return the numbers of a layer's bottom blobs."""
        return [self._blob_id(blob) for blob in self.live.live[layer].bottoms]

    def _blob_id(self, blob: Blob) -> int:
        return next(number for number, each in enumerate(self._blobs) if each is blob)

    def _check_range(self, low: int, high: int) -> None:
        if low < 0 or high >= len(self.layers):
            raise ValueError(
                f"layers are numbered 0 to {len(self.layers) - 1}; received {low} to {high}"
            )

    def _index(self, layer: str) -> int:
        if layer not in self._layer_names:
            raise ValueError(f"'{layer}' is no layer; there are {', '.join(self._layer_names)}")
        return self._layer_names.index(layer)

    def _batch_size(self) -> int:
        return self._blobs[0].shape[0]


def _layer(live: LiveLayer) -> NetLayer | PythonLayerBase:
    if isinstance(live.layer, Python):
        return live.layer.user
    return NetLayer(live.step.param.type, live.learned)
