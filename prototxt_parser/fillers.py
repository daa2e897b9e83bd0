"""Weight fillers: one function per `FillerParameter.type`.

Every filler writes its values into a tensor. Distributions are Caffe's; the random stream is
PyTorch's. Source: caffe/include/caffe/filler.hpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from prototxt_parser.errors import LayerError
from prototxt_parser.proto import caffe_pb2

Filler = Callable[[Tensor, caffe_pb2.FillerParameter, torch.Generator], None]


def constant(blob: Tensor, param: caffe_pb2.FillerParameter, generator: torch.Generator) -> None:
    """Fill with `value` (default 0). Source: ConstantFiller."""
    del generator
    blob.fill_(param.value)


def uniform(blob: Tensor, param: caffe_pb2.FillerParameter, generator: torch.Generator) -> None:
    """Draw from U[min, max]. Source: UniformFiller."""
    if param.min > param.max:
        raise LayerError(f"filler uniform: min must be <= max; received {param.min}, {param.max}")
    blob.uniform_(param.min, param.max, generator=generator)


def gaussian(blob: Tensor, param: caffe_pb2.FillerParameter, generator: torch.Generator) -> None:
    """Draw from N(mean, std²); with `sparse` s keep each value with probability s / dim 0.

    Source: GaussianFiller.
    """
    if param.std <= 0:
        raise LayerError(f"filler gaussian: std must be > 0; received {param.std}")
    blob.normal_(param.mean, param.std, generator=generator)
    if param.sparse >= 0:
        keep = param.sparse / blob.shape[0]
        if keep > 1:
            raise LayerError(
                f"filler gaussian: sparse must be at most the number of outputs, {blob.shape[0]}; "
                f"received {param.sparse}"
            )
        blob.mul_(torch.empty_like(blob).bernoulli_(keep, generator=generator))


def positive_unitball(
    blob: Tensor, param: caffe_pb2.FillerParameter, generator: torch.Generator
) -> None:
    """Draw from U(0, 1), then make every row (dim 0) sum to 1. Source: PositiveUnitballFiller."""
    del param
    rows = blob.uniform_(0, 1, generator=generator).view(blob.shape[0], -1)
    rows.div_(rows.sum(dim=1, keepdim=True))


def fan(blob: Tensor, param: caffe_pb2.FillerParameter) -> float:
    """Return Caffe's n for `variance_norm`: fan in (count / dim 0), fan out (count / dim 1), mean.

    Differs from PyTorch: fan out of a grouped convolution is not divided by the group, and both
    come from the stored layout (transposed InnerProduct and Deconvolution swap them).
    Source: XavierFiller::Fill, MSRAFiller::Fill.
    """
    fan_in = blob.numel() // blob.shape[0]
    fan_out = blob.numel() // blob.shape[1] if blob.dim() > 1 else blob.numel()
    match param.variance_norm:
        case caffe_pb2.FillerParameter.FAN_OUT:
            return fan_out
        case caffe_pb2.FillerParameter.AVERAGE:
            return (fan_in + fan_out) / 2
        case _:
            return fan_in


def xavier(blob: Tensor, param: caffe_pb2.FillerParameter, generator: torch.Generator) -> None:
    """Draw from U[-a, a], a = sqrt(3 / n).

    Differs from PyTorch: n is the fan in alone by default, so the variance is 1 / fan_in.
    Source: XavierFiller.
    """
    bound = math.sqrt(3 / fan(blob, param))
    blob.uniform_(-bound, bound, generator=generator)


def msra(blob: Tensor, param: caffe_pb2.FillerParameter, generator: torch.Generator) -> None:
    """Draw from N(0, 2 / n). Source: MSRAFiller."""
    blob.normal_(0, math.sqrt(2 / fan(blob, param)), generator=generator)


def bilinear(blob: Tensor, param: caffe_pb2.FillerParameter, generator: torch.Generator) -> None:
    """Write the kernel of bilinear upsampling into every slice. Source: BilinearFiller."""
    del param, generator
    if blob.dim() != 4 or blob.shape[2] != blob.shape[3]:
        raise LayerError(
            "filler bilinear: Blob must be 4 dim. and the Filter must be square; "
            f"received shape {tuple(blob.shape)}"
        )
    kernel = blob.shape[3]
    factor = math.ceil(kernel / 2)
    center = (kernel - 1) / (2 * factor)
    profile = 1 - (torch.arange(kernel, dtype=torch.float64) / factor - center).abs()
    blob.copy_(torch.outer(profile, profile).expand(blob.shape))


FILLERS: dict[str, Filler] = {
    filler.__name__: filler
    for filler in (constant, uniform, gaussian, positive_unitball, xavier, msra, bilinear)
}


def fill(blob: Tensor, param: caffe_pb2.FillerParameter, generator: torch.Generator) -> None:
    """Fill `blob` in place as `param` says.

    Raises:
        LayerError: Unknown type, settings out of range, `sparse` on a filler other than gaussian,
            or an empty blob.
    """
    if param.type not in FILLERS:
        raise LayerError(f"Unknown filler name: {param.type} (known: {', '.join(sorted(FILLERS))})")
    if blob.numel() == 0:
        raise LayerError(f"filler {param.type}: the blob must not be empty; shape {blob.shape}")
    if param.sparse != -1 and param.type != "gaussian":
        raise LayerError(
            f"Sparsity not supported by this Filler. Only gaussian has it; received {param.type}"
        )
    with torch.no_grad():
        FILLERS[param.type](blob, param, generator)
