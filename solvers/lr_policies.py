"""Learning-rate policies: one function per `lr_policy`, plus the state that two of them keep.

`gamma` must not be negative. As in Caffe what a file leaves out is 0: `step` without `gamma` stops
after its first step, `poly` without `power` is constant.
Source: caffe/src/caffe/solvers/sgd_solver.cpp, SGDSolver::GetLearningRate.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from prototxt_parser.proto.caffe_pb2 import SolverParameter
from solvers.errors import SolverError

logger = logging.getLogger(__name__)


def fixed(param: SolverParameter, iteration: int) -> float:
    """base_lr."""
    del iteration
    return param.base_lr


def step(param: SolverParameter, iteration: int) -> float:
    """base_lr · gamma^⌊iteration / stepsize⌋.

    `stepsize` must be > 0.
    """
    return param.base_lr * _power(param.gamma, iteration // param.stepsize)


def exp(param: SolverParameter, iteration: int) -> float:
    """base_lr · gamma^iteration."""
    return param.base_lr * _power(param.gamma, iteration)


def inv(param: SolverParameter, iteration: int) -> float:
    """base_lr · (1 + gamma · iteration)^(-power)."""
    return param.base_lr * _power(1 + param.gamma * iteration, -param.power)


def poly(param: SolverParameter, iteration: int) -> float:
    """base_lr · (1 - iteration / max_iter)^power.

    `max_iter` must be > 0.

    Differs from Caffe: 0 beyond max_iter, not NaN.
    """
    return param.base_lr * _power(max(0.0, 1 - iteration / param.max_iter), param.power)


def sigmoid(param: SolverParameter, iteration: int) -> float:
    """base_lr / (1 + exp(-gamma · (iteration - stepsize))).

    It rises from about 0 to base_lr.
    """
    exponent = -param.gamma * (iteration - param.stepsize)
    return 0.0 if exponent > 700 else param.base_lr / (1 + math.exp(exponent))


def multistep(param: SolverParameter, step: int) -> float:
    """base_lr · gamma^k, k the boundaries passed.

    An iteration passes the next boundary in `stepvalue` if it has reached it, and no more than one.
    k is saved with a snapshot.

    Differs from PyTorch: MultiStepLR passes all boundaries that it has reached at once.
    """
    return param.base_lr * _power(param.gamma, step)


def _power(base: float, exponent: float) -> float:
    try:
        return float(base**exponent)
    except (OverflowError, ZeroDivisionError):
        return math.inf  # what floating point gives where Python raises


POLICIES: dict[str, Callable[[SolverParameter, int], float]] = {
    policy.__name__: policy for policy in (fixed, step, exp, inv, poly, sigmoid)
}


class LearningRate:
    """The rate of a solver over its iterations.

    `multistep` is stateful as in Caffe: each evaluation passes at most one boundary of
    `stepvalue`, and the number passed is saved with a snapshot.

    Args:
        param: The solver's settings.

    Attributes:
        current_step: Boundaries passed (multistep), or ⌊iteration / stepsize⌋ (step).

    Raises:
        SolverError: Unknown policy, or settings that it cannot work with.
    """

    def __init__(self, param: SolverParameter) -> None:
        known = sorted([*POLICIES, "multistep"])
        if param.lr_policy not in known:
            raise SolverError(
                f"Unknown learning rate policy: {param.lr_policy or '(none given)'}; "
                f"lr_policy must be one of {', '.join(known)}"
            )
        if param.lr_policy == "step" and param.stepsize <= 0:
            raise SolverError(f"lr_policy step: stepsize must be > 0; received {param.stepsize}")
        if param.lr_policy == "poly" and param.max_iter <= 0:
            raise SolverError(f"lr_policy poly: max_iter must be > 0; received {param.max_iter}")
        if param.gamma < 0:
            raise SolverError(f"gamma must be >= 0; received {param.gamma:g}")
        self._param = param
        self.current_step = 0

    def look(self, iteration: int) -> float:
        """Return the rate that `at` would, without moving on."""
        return self._rate(iteration, self._next_step(iteration))

    def at(self, iteration: int) -> float:
        """Return the rate of the update that leads from `iteration` to the next."""
        step = self._next_step(iteration)
        if self._param.lr_policy == "multistep" and step != self.current_step:
            logger.info("MultiStep Status: Iteration %d, step = %d", iteration, step)
        self.current_step = step
        return self._rate(iteration, step)

    def settle(self, iteration: int) -> None:
        """Pass all boundaries up to `iteration`, as the updates before it would have."""
        while self._next_step(iteration) != self.current_step:
            self.at(iteration)

    def _next_step(self, iteration: int) -> int:
        step, boundaries = self.current_step, self._param.stepvalue
        if self._param.lr_policy == "step":
            return iteration // self._param.stepsize
        if self._param.lr_policy == "multistep":
            return step + (step < len(boundaries) and iteration >= boundaries[step])
        return step

    def _rate(self, iteration: int, step: int) -> float:
        if self._param.lr_policy == "multistep":
            return multistep(self._param, step)
        return POLICIES[self._param.lr_policy](self._param, iteration)


def policy_curve(param: SolverParameter, iterations: int) -> list[float]:
    """Return the rates of iterations 0 to `iterations` - 1 without training."""
    rate = LearningRate(param)
    return [rate.at(iteration) for iteration in range(iterations)]
