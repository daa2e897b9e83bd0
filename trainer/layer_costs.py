"""How much a forward pass of a layer computes.

A multiply-add is one product of an input and a weight, added up: in convolutions, fully connected
and recurrent layers. An operation is any other addition, product, comparison, or function of one
value (exp, tanh, a power). Backward passes are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prototxt_parser.layers.base import Layer
from prototxt_parser.layers.batch_norm import BatchNorm
from prototxt_parser.layers.pooling import Pooling
from prototxt_parser.layers.recurrent import Recurrent
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, count


@dataclass(frozen=True)
class Cost:
    """What one forward pass of a layer computes.

    Attributes:
        multiply_adds: Products with weights.
        operations: Everything else.
    """

    multiply_adds: int = 0
    operations: int = 0

    @property
    def flops(self) -> int:
        """Floating-point operations: two for each multiply-add."""
        return 2 * self.multiply_adds + self.operations


_Shapes = Sequence[Shape]
_Rule = Callable[[Layer, _Shapes, _Shapes], Cost]

_RULES: dict[str, _Rule] = {}

# Operations for each value of the first bottom. A softmax takes the maximum, subtracts it, and
# needs exp, a sum and a quotient; a loss on top of it takes one value per item.
_PER_VALUE = {
    "AbsVal": 1,
    "Accuracy": 1,
    "ArgMax": 1,
    "BNLL": 1,
    "BatchReindex": 0,
    "Bias": 1,
    "Clip": 2,
    "Concat": 0,
    "ContrastiveLoss": 3,
    "Crop": 0,
    "Data": 0,
    "DummyData": 0,
    "ELU": 1,
    "EuclideanLoss": 3,
    "Exp": 3,
    "Filter": 0,
    "Flatten": 0,
    "HDF5Data": 0,
    "HDF5Output": 0,
    "HingeLoss": 3,
    "Im2col": 0,
    "ImageData": 0,
    "InfogainLoss": 7,
    "Input": 0,
    "LSTMUnit": 11,
    "Log": 3,
    "MemoryData": 0,
    "MultinomialLogisticLoss": 0,
    "PReLU": 2,
    "Parameter": 0,
    "Power": 3,
    "ReLU": 1,
    "Reshape": 0,
    "Sigmoid": 1,
    "SigmoidCrossEntropyLoss": 6,
    "Silence": 0,
    "Slice": 0,
    "Softmax": 5,
    "SoftmaxWithLoss": 5,
    "Split": 0,
    "Swish": 2,
    "TanH": 1,
    "Threshold": 1,
    "Tile": 0,
    "WindowData": 0,
}


def layer_cost(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost | None:
    """Return what a forward pass costs; None for types that are not Caffe's own, and Python."""
    kind = layer.param.type
    if kind in _RULES:
        return _RULES[kind](layer, bottoms, tops)
    if kind not in _PER_VALUE:
        return None
    return Cost(0, _PER_VALUE[kind] * count(bottoms[0]) if bottoms else 0)


def _rule(*types: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        _RULES.update(dict.fromkeys(types, rule))
        return rule

    return register


@_rule("Convolution")
def _convolution(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost:
    values = sum(map(count, tops))
    return Cost(values * count(layer.blobs[0].shape, 1), values * (len(layer.blobs) - 1))


@_rule("Deconvolution")
def _deconvolution(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost:
    weights = count(layer.blobs[0].shape, 1)  # of one input channel
    bias = sum(map(count, tops)) * (len(layer.blobs) - 1)
    return Cost(sum(map(count, bottoms)) * weights, bias)


@_rule("InnerProduct")
def _inner_product(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost:
    linear, values = layer.param.inner_product_param, count(tops[0])
    inputs = count(layer.blobs[0].shape) // linear.num_output
    return Cost(values * inputs, values * (len(layer.blobs) - 1))


@_rule("Embed")
def _embed(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost:
    return Cost(0, count(tops[0]) * (len(layer.blobs) - 1))


@_rule("RNN", "LSTM")
def _recurrent(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost:
    steps, streams = bottoms[0][:2]
    products = operations = 0
    for name, blob in zip(layer.blob_names, layer.blobs, strict=True):
        times = streams if name == "weight_static" else steps * streams
        if blob.dim() == 2:
            products += times * blob.numel()
        else:
            operations += times * blob.numel()
    gates = layer.gates if isinstance(layer, Recurrent) else 1
    # An LSTM has a function of each gate and of the cell, then three products and a sum of them.
    per_value = gates + 5 if layer.param.type == "LSTM" else 2
    return Cost(products, operations + per_value * steps * streams * tops[0][2])


@_rule("Pooling")
def _pooling(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost:
    window = layer.windows(bottoms[0]).kernel if isinstance(layer, Pooling) else ()
    return Cost(0, count(tops[0]) * count(window))


@_rule("SPP")
def _spp(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost:
    return Cost(0, count(bottoms[0]) * layer.param.spp_param.pyramid_height)


@_rule("LRN")
def _lrn(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost:
    lrn = layer.param.lrn_param
    across = lrn.norm_region == caffe_pb2.LRNParameter.ACROSS_CHANNELS
    window = lrn.local_size if across else lrn.local_size**2
    # The square, the sum of the window, then scale, shift, power and product.
    return Cost(0, count(tops[0]) * (window + 5))


@_rule("BatchNorm")
def _batch_norm(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost:
    stored = isinstance(layer, BatchNorm) and layer.uses_global_stats
    # Subtract and divide; a mean takes a sum, a variance a square and a sum.
    return Cost(0, count(tops[0]) * (2 if stored else 5))


@_rule("MVN")
def _mvn(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost:
    return Cost(0, count(tops[0]) * (5 if layer.param.mvn_param.normalize_variance else 2))


@_rule("Scale")
def _scale(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost:
    return Cost(0, count(tops[0]) * (2 if layer.param.scale_param.bias_term else 1))


@_rule("Dropout")
def _dropout(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost:
    in_training = layer.context.phase == caffe_pb2.TRAIN
    return Cost(0, count(tops[0]) * 2 * in_training)


@_rule("Eltwise")
def _eltwise(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost:
    factors = len(bottoms) if layer.param.eltwise_param.coeff else 0
    return Cost(0, count(tops[0]) * (len(bottoms) - 1 + factors))


@_rule("Reduction")
def _reduction(layer: Layer, bottoms: _Shapes, tops: _Shapes) -> Cost:
    plain = (caffe_pb2.ReductionParameter.SUM, caffe_pb2.ReductionParameter.MEAN)
    return Cost(0, count(bottoms[0]) * (1 if layer.param.reduction_param.operation in plain else 2))


COUNTED_TYPES = frozenset(_PER_VALUE) | frozenset(_RULES)
