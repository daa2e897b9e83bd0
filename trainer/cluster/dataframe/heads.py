"""From a net with losses to one that predicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prototxt_parser.definition import NetDefinition
from prototxt_parser.known_layers import layer_classes
from prototxt_parser.net import Net
from prototxt_parser.proto.caffe_pb2 import LayerParameter, LossParameter, NetParameter, NetState
from prototxt_parser.shapes import Shape, canonical_axis
from prototxt_parser.state import filter_net
from trainer.cluster.dataframe.inputs import Labels

CLASSES, VALUE, BINARY = "classes", "value", "binary"

# What the first bottom of a loss says: the kind of prediction, and the layer that makes it
# probabilities ("" if it holds them already, None if it has none).
_LOSSES: Mapping[str, tuple[str, str | None]] = {
    "SoftmaxWithLoss": (CLASSES, "Softmax"),
    "InfogainLoss": (CLASSES, "Softmax"),
    "MultinomialLogisticLoss": (CLASSES, ""),
    "HingeLoss": (CLASSES, None),
    "SigmoidCrossEntropyLoss": (BINARY, "Sigmoid"),
    "EuclideanLoss": (VALUE, None),
}
_LABEL_LAYERS = ("SoftmaxWithLoss", "InfogainLoss", "MultinomialLogisticLoss", "HingeLoss")
_NOT_PREDICTED = ("Accuracy", "HDF5Output", "Silence")


@dataclass(frozen=True)
class Head:
    """Where predictions come from.

    Attributes:
        kind: `classes`: the largest value's place; `value`: the value; `binary`: its sign.
        score: Blob that they are read from.
        probability: Blob of probabilities, or "".
    """

    kind: str
    score: str
    probability: str = ""


def label_rules(definition: NetDefinition, state: NetState, net: Net) -> dict[str, Labels]:
    """Return what labels the losses of a net allow, by the blob that holds them."""
    rules: dict[str, Labels] = {}
    for layer in filter_net(definition, state).param.layer:
        if layer.type in _LABEL_LAYERS and len(layer.bottom) > 1:
            shape = net.blob_shapes[layer.bottom[0]]
            loss: LossParameter = layer.loss_param
            ignored = loss.ignore_label if loss.HasField("ignore_label") else None
            rules.setdefault(layer.bottom[1], Labels(shape[_class_axis(layer, shape)], ignored))
    return rules


def _class_axis(layer: LayerParameter, shape: Shape) -> int:
    axes = {
        "SoftmaxWithLoss": layer.softmax_param.axis,
        "InfogainLoss": layer.infogain_loss_param.axis,
    }
    return canonical_axis(axes.get(layer.type, 1), shape)


def predicting_net(
    definition: NetDefinition, state: NetState, shapes: Mapping[str, Shape]
) -> tuple[NetParameter, Head | None]:
    """Return the net that predicts: its inputs, what follows from them, and probabilities.

    Args:
        definition: The net that was trained.
        state: The state to predict in.
        shapes: Shape of every blob that predictions are made of; labels are not among them.

    Returns:
        The net in deploy form, and where predictions come from; None if no loss says that.
    """
    filtered = filter_net(definition, state)
    net = NetParameter(name=definition.param.name)
    for blob, shape in shapes.items():
        layer = net.layer.add(name=_free_name(filtered, blob), type="Input", top=[blob])
        layer.input_param.shape.add(dim=shape)
    net.layer.extend(_layers_from(filtered, set(shapes)))
    return net, _add_head(net, filtered)


def label_blobs(definition: NetDefinition, state: NetState, blobs: Mapping[str, str]) -> set[str]:
    """Return which of the fed `blobs` only losses and measures read: labels, known in training."""
    filtered = filter_net(definition, state)
    read: dict[str, bool] = {}
    for layer, kind in zip(filtered.param.layer, layer_classes(filtered), strict=True):
        for blob in layer.bottom:
            is_measure = kind.is_loss or layer.type in _NOT_PREDICTED
            read[blob] = read.get(blob, True) and is_measure
    return {blob for blob in blobs if read.get(blob, True)}


def _layers_from(filtered: NetDefinition, known: set[str]) -> Iterator[LayerParameter]:
    """Yield the layers that follow from `known` blobs, without losses and measures."""
    for layer, kind in zip(filtered.param.layer, layer_classes(filtered), strict=True):
        is_dropped = kind.is_fed or kind.is_loss or layer.type in _NOT_PREDICTED
        if not is_dropped and known.issuperset(layer.bottom):
            known.update(layer.top)
            copy = LayerParameter()
            copy.CopyFrom(layer)
            copy.ClearField("include")
            copy.ClearField("exclude")
            yield copy


def _add_head(net: NetParameter, filtered: NetDefinition) -> Head | None:
    made = {top for layer in net.layer for top in layer.top}
    for loss in filtered.param.layer:
        if loss.type not in _LOSSES or loss.bottom[0] not in made:
            continue
        kind, activation = _LOSSES[loss.type]
        score = loss.bottom[0]
        if not activation:
            return Head(kind, score, "" if activation is None else score)
        name = _free_name(filtered, "probability")
        layer = net.layer.add(name=name, type=activation, bottom=[score], top=[name])
        if activation == "Softmax":
            axes = (loss.softmax_param.axis, loss.infogain_loss_param.axis)
            layer.softmax_param.axis = axes[loss.type == "InfogainLoss"]
        return Head(kind, score, name)
    return None


def _free_name(filtered: NetDefinition, wanted: str) -> str:
    """Return a name that no layer that stays and no blob has."""
    taken = {layer.name for layer in filtered.param.layer if layer.bottom}
    taken |= {top for layer in filtered.param.layer if layer.bottom for top in layer.top}
    while wanted in taken:
        wanted += "_"
    return wanted
