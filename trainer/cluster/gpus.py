"""Which GPU a worker takes: the one that Spark has given to its task."""

from __future__ import annotations

import os

from pyspark import TaskContext

from trainer.errors import TrainerError


def assigned_device(device: str, context: TaskContext | None) -> str:
    """Return the PyTorch device of a worker.

    Args:
        device: Of the plan. Any but "cuda" stays what it is.
        context: Of the worker's task.

    Returns:
        "cuda:N" for the first GPU that Spark has given to the task; "cuda" if it gives none, and
        workers share out the GPUs of a host by their ranks.

    Raises:
        TrainerError: Spark calls the GPU by a name that says nothing of which one it is.
    """
    gpu = context.resources().get("gpu") if context is not None and device == "cuda" else None
    if gpu is None or not gpu.addresses:
        return device
    # PyTorch counts the GPUs that the process sees, Spark those that its discovery script saw.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names, address = [name.strip() for name in visible.split(",")], gpu.addresses[0]
    if address in names:
        return f"cuda:{names.index(address)}"
    if address.isdecimal():
        return f"cuda:{address}"
    raise TrainerError(
        f'Spark has given the task the GPU "{address}"; expected its number, or a name in '
        f'CUDA_VISIBLE_DEVICES, which is "{visible}": see spark.executor.resource.gpu.'
        "discoveryScript"
    )
