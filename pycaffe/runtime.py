"""What Caffe keeps per process: mode, seed, log, numbers of solvers.

Source: caffe/python/caffe/_caffe.cpp, BOOST_PYTHON_MODULE.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from typing import Any, NoReturn

from prototxt_parser.errors import PrototxtError
from prototxt_parser.layers.registry import layer_types
from trainer.caffe_log import CaffeFormatter

logger = logging.getLogger(__name__)

TRAIN = 0
TEST = 1

_LOGGERS = ("prototxt_parser", "solvers", "trainer", "pycaffe")
_SEVERITIES = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


class _Process:
    """The settings, and what was said once."""

    def __init__(self) -> None:
        self.seeds: random.Random | None = None
        self.warned_of_gpu = False
        self.solver_count, self.solver_rank = 1, 0
        self.handler = logging.StreamHandler()


_process = _Process()


def set_mode_cpu() -> None:
    """Compute on the CPU, as always."""


def set_mode_gpu() -> None:
    """Say, once, that blobs as NumPy arrays live on the CPU; scripts go on there."""
    if not _process.warned_of_gpu:
        logger.warning("pycaffe computes on the CPU, where NumPy reads and writes its blobs")
    _process.warned_of_gpu = True


def set_device(device_id: int) -> None:
    """Take the number of a GPU, which nothing is computed on."""
    del device_id


def set_random_seed(seed: int) -> None:
    """Make fillers, Dropout and random data of the nets built from now on reproducible."""
    _process.seeds = random.Random(seed)


def next_seed() -> int | None:
    """Return the seed of the next net; None, for a random one, before `set_random_seed`."""
    return None if _process.seeds is None else _process.seeds.getrandbits(62)


def init_log(level: int = 0, to_stderr: bool = True) -> None:
    """Print log lines as Caffe does.

    Args:
        level: Least severity: 0 information, 1 warnings, 2 errors, 3 fatal errors.
        to_stderr: False prints nothing.
    """
    handler = _process.handler
    handler.setStream(sys.stderr)
    handler.setFormatter(CaffeFormatter())
    for name in _LOGGERS:
        ours = logging.getLogger(name)
        ours.setLevel(_SEVERITIES[level])
        ours.removeHandler(handler)
        if to_stderr:
            ours.addHandler(handler)


def log(message: str) -> None:
    """Log a line."""
    logger.info("%s", message)


def layer_type_list() -> list[str]:
    """Return all layer types."""
    return layer_types()


def solver_count() -> int:
    """Return how many solvers a data-parallel run has; 1 unless set."""
    return _process.solver_count


def set_solver_count(count: int) -> None:
    """Set what `solver_count` returns."""
    _process.solver_count = count


def solver_rank() -> int:
    """Return which of the solvers this is; 0 unless set."""
    return _process.solver_rank


def set_solver_rank(rank: int) -> None:
    """Set what `solver_rank` returns."""
    _process.solver_rank = rank


def set_multiprocess(is_multiprocess: bool) -> None:
    """Take the wish, which changes nothing here: one process has one solver."""
    del is_multiprocess


def has_nccl() -> bool:
    """Return whether solvers can be joined over NCCL: no."""
    return False


class NCCL:
    """Caffe's link between GPUs, which we refuse.

    Raises:
        PrototxtError: Always.
    """

    def __init__(self, *args: Any) -> None:
        del args
        raise_no_nccl()

    @staticmethod
    def new_uid() -> NoReturn:
        """Refuse."""
        raise_no_nccl()


def raise_no_nccl() -> NoReturn:
    """Say what to use instead of NCCL."""
    raise PrototxtError(
        "pycaffe has no NCCL: has_nccl() is False. Several workers train one net with "
        "`train --spark` or `train --workers` instead"
    )


class Timer:
    """A stopwatch."""

    def __init__(self) -> None:
        self._start = self._stop = 0.0

    def start(self) -> None:
        """Start."""
        self._start = self._stop = time.perf_counter()

    def stop(self) -> None:
        """Stop."""
        self._stop = time.perf_counter()

    @property
    def ms(self) -> float:
        """Milliseconds from the last start to the last stop."""
        return (self._stop - self._start) * 1e3
