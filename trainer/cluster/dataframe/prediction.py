"""Making what predicts of what was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from prototxt_parser.proto.caffe_pb2 import TEST, TransformationParameter
from prototxt_parser.shapes import Shape, count
from trainer.cluster.dataframe.heads import CLASSES, Head, label_blobs, predicting_net
from trainer.cluster.dataframe.inputs import Input
from trainer.cluster.dataframe.model_files import Deployed
from trainer.cluster.dataframe.training import Side


def deploy(testing: Side, shapes: Mapping[str, Shape], *, named: bool) -> Deployed:
    """Return what predicts: the net of the TEST phase, without labels, losses and measures.

    Args:
        testing: The TEST phase.
        shapes: Shape of every blob of the trained net.
        named: The blobs that are fed have columns by name, so all but labels are features; else
            only the first one is.
    """
    labels = label_blobs(testing.definition, testing.state, testing.columns)
    features = [
        _still(each)
        for place, each in enumerate(testing.inputs)
        if (each.blob not in labels if named else place == 0)
    ]
    tops = {each.blob: each.top_shape(1) for each in features}
    net, head = predicting_net(testing.definition, testing.state, tops)
    return Deployed(net, tuple(features), head if _fits(head, shapes) else None)


def _still(each: Input) -> Input:
    """Return the input without what is random: crops from the centre, no mirrors."""
    transform = None
    if each.transform is not None:
        transform = TransformationParameter()
        transform.CopyFrom(each.transform)
        transform.ClearField("mirror")
    return replace(each, transform=transform, phase=TEST, labels=None)


def _fits(head: Head | None, shapes: Mapping[str, Shape]) -> bool:
    """Return whether a row has one prediction: not one per pixel, nor several values."""
    if head is None:
        return False
    shape: Sequence[int] = shapes.get(head.score, ())
    return len(shape) > 1 and count(shape[2:] if head.kind == CLASSES else shape[1:]) == 1
