"""Residual nets of He et al. 2015 (Deep Residual Learning), for CIFAR-10 and for ImageNet.

Batch normalisation keeps statistics of about the last ten batches, and every learned number decays,
the scales and shifts too. Where size or stride changes, the stride is that of a block's first
convolution, as in the paper.
"""

from __future__ import annotations

from models.net_text import NetWriter

_STATISTICS = {"moving_average_fraction": 0.9}

# Section 4.2: 6n + 2 layers, n blocks in each of three stages.
_CIFAR_WIDTHS = (16, 32, 64)
_CIFAR_MEAN = (125.307, 122.95, 113.865)
_CIFAR_SOURCES = (
    "examples/cifar10/cifar10_train_pad4_lmdb",
    "examples/cifar10/cifar10_test_lmdb",
)

# Table 1: blocks in each of four stages.
_IMAGENET_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_IMAGENET_MEAN = (104, 117, 123)
_IMAGENET_SOURCES = (
    "examples/imagenet/ilsvrc12_train_lmdb",
    "examples/imagenet/ilsvrc12_val_lmdb",
)


def cifar_resnet(depth: int, *, deploy: bool) -> NetWriter:
    """Return ResNet-20, -56, -110 or another of 6n + 2 layers, with parameter-free shortcuts.

    Source: He et al. 2015, section 4.2.
    """
    use = "to use with trained weights" if deploy else "for training and testing"
    comment = f"ResNet-{depth} for CIFAR-10, {use}: identity shortcuts, zeros for new channels."
    if not deploy:
        comment += (
            " The random crops come from images with a border (torrefy data cifar10 --pad 4)."
        )
    net = NetWriter(f"ResNet-{depth}", comment, deploy=deploy)
    blob = net.data(_CIFAR_SOURCES, (128, 100), (3, 32, 32), _CIFAR_MEAN)
    blob = net.convolution("conv1", blob, 16, 3)
    net.normalise("bn1", "scale1", blob, **_STATISTICS)
    net.relu("relu1", blob)
    for stage, width in enumerate(_CIFAR_WIDTHS, 1):
        for block in range(1, (depth - 2) // 6 + 1):
            halve = stage > 1 and block == 1
            blob = _basic_block(net, f"stage{stage}_block{block}", blob, width, halve=halve)
    blob = _global_average(net, "pool", blob)
    net.finish(net.classifier("fc", blob, 10))
    return net


def _basic_block(net: NetWriter, name: str, bottom: str, width: int, *, halve: bool) -> str:
    shortcut, blob = bottom, bottom
    if halve:
        shortcut = _shortcut_with_zeros(net, name, bottom)
    for index in (1, 2):
        stride = 2 if halve and index == 1 else 1
        blob = net.convolution(f"{name}_conv{index}", blob, width, 3, stride)
        net.normalise(f"{name}_bn{index}", f"{name}_scale{index}", blob, **_STATISTICS)
        if index == 1:
            net.relu(f"{name}_relu1", blob)
    return net.relu(f"{name}_relu2", net.add(name, "Eltwise", [shortcut, blob]))


def _shortcut_with_zeros(net: NetWriter, name: str, bottom: str) -> str:
    """Append option A: every second pixel, and as many channels of zeros.

    Rounding down matters: Caffe's default makes 17 pixels of 32.
    """
    window = {"pool": "AVE", "kernel_size": 1, "stride": 2, "round_mode": "FLOOR"}
    pixels = net.add(f"{name}_pixels", "Pooling", [bottom], pooling_param=window)
    zeros = net.add(f"{name}_zeros", "Power", [pixels], power_param={"scale": 0})
    return net.add(f"{name}_shortcut", "Concat", [pixels, zeros])


def imagenet_resnet(depth: int, *, deploy: bool) -> NetWriter:
    """Return ResNet-50 or -101; layers have the names of the authors' release.

    Source: He et al. 2015, table 1.
    """
    use = "to use with trained weights" if deploy else "for training and testing"
    comment = (
        f"ResNet-{depth} for ImageNet, {use}: bottleneck blocks with the stride in their first "
        "1 x 1 convolution, projections where the size changes."
    )
    net = NetWriter(f"ResNet-{depth}", comment, deploy=deploy)
    blob = net.data(_IMAGENET_SOURCES, (32, 50), (3, 224, 224), _IMAGENET_MEAN)
    blob = net.convolution("conv1", blob, 64, 7, stride=2)
    net.normalise("bn_conv1", "scale_conv1", blob, **_STATISTICS)
    net.relu("conv1_relu", blob)
    window = {"pool": "MAX", "kernel_size": 3, "stride": 2}
    blob = net.add("pool1", "Pooling", [blob], pooling_param=window)
    for stage, blocks in enumerate(_IMAGENET_BLOCKS[depth], 2):
        for block in range(blocks):
            name = f"{stage}{_block_name(depth, stage, block)}"
            stride = 2 if stage > 2 and block == 0 else 1
            blob = _bottleneck(net, name, blob, 2 ** (stage + 4), stride, project=block == 0)
    blob = _global_average(net, "pool5", blob)
    net.finish(net.classifier("fc1000", blob, 1000), top_k=(1, 5))
    return net


def _block_name(depth: int, stage: int, block: int) -> str:
    if depth > 50 and stage in (3, 4):
        return f"b{block}" if block else "a"
    return "abcdef"[block]


def _bottleneck(
    net: NetWriter, name: str, bottom: str, width: int, stride: int, *, project: bool
) -> str:
    def step(branch: str, blob: str, num_output: int, kernel: int, stride: int = 1) -> str:
        blob = net.convolution(f"res{name}_{branch}", blob, num_output, kernel, stride)
        return net.normalise(f"bn{name}_{branch}", f"scale{name}_{branch}", blob, **_STATISTICS)

    shortcut = step("branch1", bottom, 4 * width, 1, stride) if project else bottom
    blob = step("branch2a", bottom, width, 1, stride)
    net.relu(f"res{name}_branch2a_relu", blob)
    blob = step("branch2b", blob, width, 3)
    net.relu(f"res{name}_branch2b_relu", blob)
    blob = step("branch2c", blob, 4 * width, 1)
    return net.relu(f"res{name}_relu", net.add(f"res{name}", "Eltwise", [shortcut, blob]))


def _global_average(net: NetWriter, name: str, bottom: str) -> str:
    window = {"pool": "AVE", "global_pooling": True}
    return net.add(name, "Pooling", [bottom], pooling_param=window)
