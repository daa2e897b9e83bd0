"""Class labels as Caffe stores them: floats, one per position beside the class axis."""

from __future__ import annotations

from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.shapes import Shape, count, shape_text


def check_labels(scores: Shape, labels: Shape, axis: int) -> None:
    """Raise LayerError unless there is one label per position beside `axis`."""
    expected = count(scores, 0, axis) * count(scores, axis + 1)
    if count(labels) != expected:
        raise LayerError(
            "Number of labels must match number of predictions; "
            f"scores {shape_text(scores)} with class axis {axis} need {expected} labels, "
            f"received {shape_text(labels)}"
        )


def class_labels(
    labels: Tensor,
    scores: Tensor,
    axis: int,
    param: caffe_pb2.LossParameter | caffe_pb2.AccuracyParameter,
) -> tuple[Tensor, Tensor | None]:
    """Return integer labels laid out like `scores` with a class axis of 1, and which count.

    Args:
        labels: Floats, truncated to integers; only their number matters.
        scores: The scores that they belong to.
        axis: Class axis of the scores.
        param: Holds `ignore_label`, if any.

    Returns:
        Labels ready for `gather` along `axis` (ignored ones are 0), and a mask of the same shape of
        those that count, or None if all do.

    Raises:
        LayerError: A label that counts is not in [0, classes).
    """
    shape = (*scores.shape[:axis], 1, *scores.shape[axis + 1 :])
    whole = labels.detach().reshape(shape).long()
    counted = None
    if param.HasField("ignore_label"):
        counted = whole != param.ignore_label
        whole = whole * counted
    classes = scores.shape[axis]
    if whole.numel() and (whole.min() < 0 or whole.max() >= classes):
        wrong = whole[(whole < 0) | (whole >= classes)][0].item()
        raise LayerError(f"label {wrong} is no class: the scores have classes 0 to {classes - 1}")
    return whole, counted
