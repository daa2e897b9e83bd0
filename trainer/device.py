"""Which PyTorch device a run uses."""

from __future__ import annotations

import logging
import re

import torch

from prototxt_parser.proto.caffe_pb2 import SolverParameter
from trainer.errors import UsageError

logger = logging.getLogger(__name__)


def gpu_numbers(gpus: str) -> list[int]:
    """Return the numbers that Caffe's flag -gpu names: `""` none, `0,1` these, `all` all there.

    Raises:
        UsageError: The text is no such list, or PyTorch has no such GPU.
    """
    if not gpus:
        return []
    there = torch.cuda.device_count()
    if gpus != "all" and not re.fullmatch(r"\d+(,\d+)*", gpus):
        raise UsageError(f'-gpu: expected numbers such as 0 or 0,1, or "all"; received {gpus}')
    numbers = list(range(there)) if gpus == "all" else [int(number) for number in gpus.split(",")]
    if not numbers or max(numbers) >= there:
        raise UsageError(
            f"-gpu {gpus}: PyTorch finds {there} CUDA devices here; leave the flag out for the CPU"
        )
    return numbers


def one_gpu(gpus: str) -> str:
    """Return the device of Caffe's flag -gpu for a run on one: the CPU for "", else the first.

    Raises:
        UsageError: As `gpu_numbers`.
    """
    numbers = gpu_numbers(gpus)
    return f"cuda:{numbers[0]}" if numbers else "cpu"


def log_gpu(device: str) -> None:
    """Log what a test computes on, as Caffe does."""
    if device == "cpu":
        logger.info("Use CPU.")
        return
    logger.info("Use GPU with device ID %d", torch.device(device).index)
    logger.info("GPU device name: %s", torch.cuda.get_device_name(device))


def log_gpus(device: str) -> None:
    """Log what a training run computes on, as Caffe does."""
    if not device.startswith("cuda"):
        logger.info("Use CPU.")
        return
    number = torch.device(device).index or 0
    logger.info("Using GPUs %d", number)
    logger.info("GPU %d: %s", number, torch.cuda.get_device_name(number))


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
