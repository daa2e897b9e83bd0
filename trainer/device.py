"""Which PyTorch device a run uses."""

from __future__ import annotations

import torch

from prototxt_parser.proto.caffe_pb2 import SolverParameter
from trainer.errors import UsageError


def choose_device(requested: str, param: SolverParameter) -> tuple[str, str]:
    """Return the device and a sentence about the choice, or "".

    Args:
        requested: `auto`, `cpu`, `cuda`, `cuda:1`, …. `auto` follows Caffe's command line: a GPU
            only if the solver file says `solver_mode: GPU` itself; where PyTorch has none, the CPU.
        param: The solver's settings.

    Raises:
        UsageError: A device that is not there.
    """
    if requested != "auto":
        return _check(requested), ""
    if not param.HasField("solver_mode") or param.solver_mode == SolverParameter.CPU:
        return "cpu", ""
    if not torch.cuda.is_available():
        return "cpu", "solver_mode: GPU, but PyTorch finds no CUDA device here: using the CPU"
    return f"cuda:{param.device_id}", ""


def _check(name: str) -> str:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: PyTorch cannot use it here: {reason}") from error
    return str(device)
