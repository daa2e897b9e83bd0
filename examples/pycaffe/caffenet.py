"""CaffeNet written in Python instead of prototxt.

python examples/pycaffe/caffenet.py > caffenet.prototxt
"""

from __future__ import annotations

import sys

from pycaffe import NetSpec
from pycaffe import layers as L
from pycaffe import params as P

# Outputs, kernel and the rest of each convolution; whether pooling and normalisation follow.
_CONVOLUTIONS = (
    ({"num_output": 96, "kernel_size": 11, "stride": 4}, True, True),
    ({"num_output": 256, "kernel_size": 5, "pad": 2, "group": 2}, True, True),
    ({"num_output": 384, "kernel_size": 3, "pad": 1}, False, False),
    ({"num_output": 384, "kernel_size": 3, "pad": 1, "group": 2}, False, False),
    ({"num_output": 256, "kernel_size": 3, "pad": 1, "group": 2}, True, False),
)


def caffenet(source: str, batch_size: int = 256, *, with_accuracy: bool = False) -> NetSpec:
    """Return CaffeNet over an LMDB of images.

    Args:
        source: The database.
        batch_size: Images per batch.
        with_accuracy: Add the layer that scores the net.
    """
    net = NetSpec()
    net.data, net.label = L.Data(
        source=source,
        backend=P.Data.LMDB,
        batch_size=batch_size,
        ntop=2,
        transform_param={"crop_size": 227, "mean_value": [104, 117, 123], "mirror": True},
    )
    blob = net.data
    for number, (settings, is_pooled, is_normalised) in enumerate(_CONVOLUTIONS, 1):
        blob = net[f"conv{number}"] = L.Convolution(blob, **settings)
        blob = net[f"relu{number}"] = L.ReLU(blob, in_place=True)
        if is_pooled:
            blob = L.Pooling(blob, pool=P.Pooling.MAX, kernel_size=3, stride=2)
            net[f"pool{number}"] = blob
        if is_normalised:
            blob = net[f"norm{number}"] = L.LRN(blob, local_size=5, alpha=1e-4, beta=0.75)
    for number in (6, 7):
        blob = net[f"fc{number}"] = L.InnerProduct(blob, num_output=4096)
        blob = net[f"relu{number}"] = L.ReLU(blob, in_place=True)
        blob = net[f"drop{number}"] = L.Dropout(blob, in_place=True)
    net.fc8 = L.InnerProduct(blob, num_output=1000)
    if with_accuracy:
        net.accuracy = L.Accuracy(net.fc8, net.label)
    net.loss = L.SoftmaxWithLoss(net.fc8, net.label)
    return net


if __name__ == "__main__":
    sys.stdout.write(str(caffenet("examples/imagenet/ilsvrc12_train_lmdb").to_proto()))
