"""Inception-v3 of Szegedy et al. 2015 (Rethinking the Inception Architecture), as it was released.

The sizes are those of the authors' released net, which the counts of other libraries refer to: its
stem and first modules differ in detail from the paper's table 1. Batch normalisation is followed by
scale and shift; the release had no scale. Label smoothing is not in it: SoftmaxWithLoss has none.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.net_text import NetWriter

_STATISTICS = {"moving_average_fraction": 0.9, "eps": 0.001}
_MEAN = (104, 117, 123)
_SOURCES = (
    "examples/imagenet/ilsvrc12_train_320_lmdb",
    "examples/imagenet/ilsvrc12_val_320_lmdb",
)


@dataclass(frozen=True)
class Conv:
    """A convolution with batch normalisation and rectifier; padded to keep the size, or not."""

    name: str
    num_output: int
    height: int
    width: int
    stride: int = 1
    padded: bool = True


@dataclass(frozen=True)
class Pool:
    """Windows of 3 x 3."""

    kind: str
    stride: int

    @property
    def padded(self) -> bool:
        """Whether the size is kept."""
        return self.stride == 1


# The steps of a branch, each on top of the one before; those of a tuple side by side.
Branch = list[Conv | Pool | tuple[Conv, ...]]

_STEM: Branch = [
    Conv("conv1/3x3_s2", 32, 3, 3, stride=2, padded=False),
    Conv("conv2/3x3", 32, 3, 3, padded=False),
    Conv("conv3/3x3", 64, 3, 3),
    Pool("MAX", 2),
    Conv("conv4/1x1", 80, 1, 1),
    Conv("conv5/3x3", 192, 3, 3, padded=False),
    Pool("MAX", 2),
]


def _module_a(pool_outputs: int) -> list[Branch]:
    return [
        [Conv("1x1", 64, 1, 1)],
        [Conv("5x5_reduce", 48, 1, 1), Conv("5x5", 64, 5, 5)],
        [Conv("double_reduce", 64, 1, 1), Conv("double_a", 96, 3, 3), Conv("double_b", 96, 3, 3)],
        [Pool("AVE", 1), Conv("pool_proj", pool_outputs, 1, 1)],
    ]


def _reduction_a() -> list[Branch]:
    return [
        [Conv("3x3", 384, 3, 3, stride=2, padded=False)],
        [
            Conv("double_reduce", 64, 1, 1),
            Conv("double_a", 96, 3, 3),
            Conv("double_b", 96, 3, 3, stride=2, padded=False),
        ],
        [Pool("MAX", 2)],
    ]


def _module_b(width: int) -> list[Branch]:
    return [
        [Conv("1x1", 192, 1, 1)],
        [Conv("7x7_reduce", width, 1, 1), Conv("1x7", width, 1, 7), Conv("7x1", 192, 7, 1)],
        [
            Conv("double_reduce", width, 1, 1),
            Conv("double_7x1_a", width, 7, 1),
            Conv("double_1x7_a", width, 1, 7),
            Conv("double_7x1_b", width, 7, 1),
            Conv("double_1x7_b", 192, 1, 7),
        ],
        [Pool("AVE", 1), Conv("pool_proj", 192, 1, 1)],
    ]


def _reduction_b() -> list[Branch]:
    return [
        [Conv("3x3_reduce", 192, 1, 1), Conv("3x3", 320, 3, 3, stride=2, padded=False)],
        [
            Conv("7x7_reduce", 192, 1, 1),
            Conv("1x7", 192, 1, 7),
            Conv("7x1", 192, 7, 1),
            Conv("7x7_3x3", 192, 3, 3, stride=2, padded=False),
        ],
        [Pool("MAX", 2)],
    ]


def _module_c() -> list[Branch]:
    return [
        [Conv("1x1", 320, 1, 1)],
        [Conv("3x3_reduce", 384, 1, 1), (Conv("1x3", 384, 1, 3), Conv("3x1", 384, 3, 1))],
        [
            Conv("double_reduce", 448, 1, 1),
            Conv("double_3x3", 384, 3, 3),
            (Conv("double_1x3", 384, 1, 3), Conv("double_3x1", 384, 3, 1)),
        ],
        [Pool("AVE", 1), Conv("pool_proj", 192, 1, 1)],
    ]


_BEFORE_AUXILIARY = {
    "mixed_5b": _module_a(32),
    "mixed_5c": _module_a(64),
    "mixed_5d": _module_a(64),
    "mixed_6a": _reduction_a(),
    "mixed_6b": _module_b(128),
    "mixed_6c": _module_b(160),
    "mixed_6d": _module_b(160),
    "mixed_6e": _module_b(192),
}
_AFTER_AUXILIARY = {
    "mixed_7a": _reduction_b(),
    "mixed_7b": _module_c(),
    "mixed_7c": _module_c(),
}
_AUXILIARY: Branch = [
    Conv("conv", 128, 1, 1),
    Conv("conv5x5", 768, 5, 5, padded=False),
]


def inception_v3(*, deploy: bool) -> NetWriter:
    """Return Inception-v3, its auxiliary classifier in the form for training only."""
    use = "to use with trained weights" if deploy else "for training and testing"
    comment = f"Inception-v3 for ImageNet, {use}."
    if not deploy:
        comment += " The databases hold images of at least 299 x 299, here of 320 x 320."
    net = NetWriter("Inception-v3", comment, deploy=deploy)
    blob = net.data(_SOURCES, (32, 50), (3, 299, 299), _MEAN)
    (blob,) = _branch(net, "", blob, _STEM)
    for name, branches in _BEFORE_AUXILIARY.items():
        blob = _module(net, name, blob, branches)
    if not deploy:
        _auxiliary(net, blob)
    for name, branches in _AFTER_AUXILIARY.items():
        blob = _module(net, name, blob, branches)
    average = {"pool": "AVE", "global_pooling": True}
    blob = net.add("pool", "Pooling", [blob], pooling_param=average)
    net.add("drop", "Dropout", [blob], blob, dropout_param={"dropout_ratio": 0.5})
    net.finish(net.classifier("classifier", blob, 1000), top_k=(1, 5))
    return net


def _auxiliary(net: NetWriter, bottom: str) -> None:
    window = {"pool": "AVE", "kernel_size": 5, "stride": 3}
    blob = net.add("aux/pool", "Pooling", [bottom], pooling_param=window)
    (blob,) = _branch(net, "aux/", blob, _AUXILIARY)
    scores = net.classifier("aux/classifier", blob, 1000)
    net.add("aux/loss", "SoftmaxWithLoss", [scores, "label"], loss_weight=[0.4])


def _module(net: NetWriter, name: str, bottom: str, branches: list[Branch]) -> str:
    tops = [top for branch in branches for top in _branch(net, f"{name}/", bottom, branch)]
    return net.add(f"{name}/output", "Concat", tops)


def _branch(net: NetWriter, prefix: str, blob: str, branch: Branch) -> list[str]:
    for step in branch:
        if isinstance(step, Pool):
            blob = _pool(net, prefix or f"{blob.split('/')[0]}/", blob, step)
        elif isinstance(step, Conv):
            blob = _convolution(net, prefix + step.name, blob, step)
        else:
            return [_convolution(net, prefix + conv.name, blob, conv) for conv in step]
    return [blob]


def _pool(net: NetWriter, prefix: str, bottom: str, pool: Pool) -> str:
    window = {"pool": pool.kind, "kernel_size": 3, "stride": pool.stride}
    if pool.padded:
        window["pad"] = 1
    return net.add(f"{prefix}pool", "Pooling", [bottom], pooling_param=window)


def _convolution(net: NetWriter, name: str, bottom: str, conv: Conv) -> str:
    kernel = (conv.height, conv.width)
    blob = net.convolution(name, bottom, conv.num_output, kernel, conv.stride, padded=conv.padded)
    net.normalise(f"{name}_bn", f"{name}_scale", blob, **_STATISTICS)
    return net.relu(f"{name}_relu", blob)
