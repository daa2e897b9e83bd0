"""Update rules: one function per solver type, on flat tensors.

Every function turns the gradient g, in place, into the value that is subtracted from the
parameters, and moves the history. r is the rate of the blob (rate · lr_mult).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from prototxt_parser.proto.caffe_pb2 import SolverParameter
from solvers.errors import SolverError

Rule = Callable[[Tensor, Sequence[Tensor], float, int, SolverParameter], None]


def sgd(
    g: Tensor, history: Sequence[Tensor], rate: float, iteration: int, param: SolverParameter
) -> None:
    """H ← μh + r·g; subtract h.

    Differs from PyTorch: the rate is inside h, so a change of the rate leaves the old velocity as
    it was. No dampening.
    Source: caffe/src/caffe/solvers/sgd_solver.cpp, SGDSolver::ComputeUpdateValue.
    """
    del iteration
    (h,) = history
    h.mul_(param.momentum).add_(g, alpha=rate)
    g.copy_(h)


def nesterov(
    g: Tensor, history: Sequence[Tensor], rate: float, iteration: int, param: SolverParameter
) -> None:
    """H' = h; h ← μh + r·g; subtract (1 + μ)h - μh'.

    Differs from PyTorch: the rate is inside h; while the rate stays the same both are equal.
    Source: caffe/src/caffe/solvers/nesterov_solver.cpp, NesterovSolver::ComputeUpdateValue.
    """
    del iteration
    (h,) = history
    previous = h.clone()
    h.mul_(param.momentum).add_(g, alpha=rate)
    g.copy_(h).mul_(1 + param.momentum).sub_(previous, alpha=param.momentum)


def adagrad(
    g: Tensor, history: Sequence[Tensor], rate: float, iteration: int, param: SolverParameter
) -> None:
    """H ← h + g²; subtract r·g / (√h + δ).

    Differs from PyTorch: δ is 1e-8, not 1e-10; no lr_decay.
    Source: caffe/src/caffe/solvers/adagrad_solver.cpp, AdaGradSolver::ComputeUpdateValue.
    """
    del iteration
    (h,) = history
    h.addcmul_(g, g)
    g.div_(h.sqrt().add_(param.delta)).mul_(rate)


def rmsprop(
    g: Tensor, history: Sequence[Tensor], rate: float, iteration: int, param: SolverParameter
) -> None:
    """H ← ρh + (1 - ρ)g²; subtract r·g / (√h + δ), ρ = rms_decay.

    Differs from PyTorch: no momentum, never centred; a file gives no momentum to it.
    Source: caffe/src/caffe/solvers/rmsprop_solver.cpp, RMSPropSolver::ComputeUpdateValue.
    """
    del iteration
    (h,) = history
    h.mul_(param.rms_decay).addcmul_(g, g, value=_one_minus(param.rms_decay))
    g.div_(h.sqrt().add_(param.delta)).mul_(rate)


def adadelta(
    g: Tensor, history: Sequence[Tensor], rate: float, iteration: int, param: SolverParameter
) -> None:
    """H ← μh + (1 - μ)g²; v = g·√((k + δ) / (h + δ)); k ← μk + (1 - μ)v²; subtract r·v.

    Differs from PyTorch: the decay is `momentum`, 0 unless set (0.9 there), and δ is 1e-8 (1e-6).
    Source: caffe/src/caffe/solvers/adadelta_solver.cpp, AdaDeltaSolver::ComputeUpdateValue.
    """
    del iteration
    h, k = history
    decay, rest = param.momentum, _one_minus(param.momentum)
    h.mul_(decay).addcmul_(g, g, value=rest)
    g.mul_((k + param.delta).div_(h + param.delta).sqrt_())
    k.mul_(decay).addcmul_(g, g, value=rest)
    g.mul_(rate)


def adam(
    g: Tensor, history: Sequence[Tensor], rate: float, iteration: int, param: SolverParameter
) -> None:
    """M ← β₁m + (1 - β₁)g; v ← β₂v + (1 - β₂)g²; subtract r·c·m / (√v + δ).

    c = √(1 - β₂ᵗ) / (1 - β₁ᵗ), t = iteration + 1. β₁ is `momentum`, 0 unless set.
    Differs from PyTorch: δ is added to the uncorrected root; decay is part of the gradient, as in
    Adam and not in AdamW; t is the solver's iteration, whatever the blob.
    Source: caffe/src/caffe/solvers/adam_solver.cpp, AdamSolver::ComputeUpdateValue.
    """
    m, v = history
    beta1, beta2, t = param.momentum, param.momentum2, iteration + 1
    m.mul_(beta1).add_(g, alpha=_one_minus(beta1))
    v.mul_(beta2).addcmul_(g, g, value=_one_minus(beta2))
    correction = math.sqrt(1 - beta2**t) / (1 - beta1**t)
    g.copy_(m).div_(v.sqrt().add_(param.delta)).mul_(rate * correction)


def _one_minus(value: float) -> float:
    """Return 1 - value as Caffe forms it, in float32."""
    return float(np.float32(1) - np.float32(value))


@dataclass(frozen=True)
class SolverType:
    """A rule and what it needs.

    Attributes:
        rule: The function.
        slots: History tensors per parameter.
        takes_momentum: Whether `momentum` may be set.
    """

    rule: Rule
    slots: int = 1
    takes_momentum: bool = True


SOLVER_TYPES: dict[str, SolverType] = {
    "SGD": SolverType(sgd),
    "Nesterov": SolverType(nesterov),
    "AdaGrad": SolverType(adagrad, takes_momentum=False),
    "RMSProp": SolverType(rmsprop, takes_momentum=False),
    "AdaDelta": SolverType(adadelta, slots=2),
    "Adam": SolverType(adam, slots=2),
}


def solver_type(param: SolverParameter) -> SolverType:
    """Return the type that `param.type` names.

    Raises:
        SolverError: Unknown type, or settings that it forbids.
    """
    if param.type not in SOLVER_TYPES:
        raise SolverError(
            f"Unknown solver type: {param.type} (known types: {', '.join(sorted(SOLVER_TYPES))})"
        )
    found = SOLVER_TYPES[param.type]
    if param.momentum and not found.takes_momentum:
        raise SolverError(
            f"Momentum cannot be used with {param.type}. Remove momentum: {param.momentum:g}"
        )
    if param.type == "RMSProp" and not 0 <= param.rms_decay < 1:
        raise SolverError(f"rms_decay must lie in [0, 1); received {param.rms_decay:g}")
    return found
