"""One class per Caffe layer type. Importing the package registers all of them."""

from prototxt_parser.layers import (
    accuracy,
    activations,
    batch_norm,
    concat,
    convolution,
    data,
    dropout,
    eltwise,
    inner_product,
    input,  # noqa: A004  (Caffe's name of the layer)
    losses,
    lrn,
    pooling,
    scale,
    softmax,
    split,
)

__all__ = [
    "accuracy",
    "activations",
    "batch_norm",
    "concat",
    "convolution",
    "data",
    "dropout",
    "eltwise",
    "inner_product",
    "input",
    "losses",
    "lrn",
    "pooling",
    "scale",
    "softmax",
    "split",
]
