"""The file of a centre that several processes map: its values, and the books of its servers."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.errors import TrainerError, UsageError
from trainer.parameter_server.shared import map_shared, shared_file
from trainer.strategies.arithmetic import Layout
from trainer.strategies.base import CenterSettings

_POLL_S = 0.002


@dataclass(frozen=True)
class CenterMemory:
    """What is in the file; a change is seen by all who map it.

    Attributes:
        parameters: The centre, shape (P,).
        squares: Sums of squares for Adagrad, shape (P,); (0,) if the strategy has no use for them.
        attempts: Current attempt of each worker, shape (K,). Only the driver writes it.
        pushes: Last push that each server has taken from each worker, shape (N, K). Row n is
            written by server n alone.
    """

    parameters: Tensor
    squares: Tensor
    attempts: npt.NDArray[np.int64]
    pushes: npt.NDArray[np.int64]


@dataclass(frozen=True)
class CenterFile:
    """Where the centre of a run lies. It travels to the processes that serve it.

    Attributes:
        path: The file.
        size: Number of parameters P.
        layout: Which of them are weights.
        settings: What the strategy asks of the centre.
        workers: Number of workers K.
        servers: Number of processes N that serve a range each; 0: workers change it themselves.
    """

    path: str
    size: int
    layout: Layout
    settings: CenterSettings
    workers: int
    servers: int

    @property
    def ranges(self) -> list[slice]:
        """The parts of the flat buffer, one per server, of equal size but for one value."""
        edges = [self.size * n // self.servers for n in range(self.servers + 1)]
        return [slice(start, stop) for start, stop in pairwise(edges)]

    @property
    def length(self) -> int:
        """Values of 4 bytes in the file: parameters, squares, and books of 8 bytes each."""
        return self._books + 2 * (1 + self.servers) * self.workers

    @property
    def _books(self) -> int:
        values = self.size * (2 if self.settings.keeps_squares else 1)
        return values + values % 2

    def map(self) -> CenterMemory:
        """Return what is in the file.

        Raises:
            TrainerError: It is not on this host.
        """
        flat = map_shared(Path(self.path), self.length, socket.gethostname()).numpy()
        values, books = np.split(flat, [self._books])
        rows = books.view(np.int64).reshape(1 + self.servers, self.workers)
        squares = values[self.size : 2 * self.size if self.settings.keeps_squares else self.size]
        return CenterMemory(
            torch.from_numpy(values[: self.size]), torch.from_numpy(squares), rows[0], rows[1:]
        )

    @contextmanager
    def held(self, number: int, wait_s: float) -> Iterator[None]:
        """Keep other processes out of a range: whoever moves it, or copies it.

        The lock is the kernel's, of this opening of the file: it ends with the process.

        Args:
            number: Which range.
            wait_s: Longest wait for it.

        Raises:
            TrainerError: It was not to be had.
        """
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            deadline = time.monotonic() + wait_s
            while not _lock(descriptor, number):
                if time.monotonic() > deadline:
                    raise TrainerError(
                        f"range {number} of the centre was not free for {wait_s:g} s: is the "
                        "process that serves it, or the driver, stopped?"
                    )
                time.sleep(_POLL_S)
            yield
        finally:
            os.close(descriptor)


def _lock(descriptor: int, number: int) -> bool:
    """Try to lock a byte of a file for one opening of it; see fcntl(2), F_OFD_SETLK."""
    request = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


@contextmanager
def center_file(
    size: int, layout: Layout, settings: CenterSettings, workers: int, servers: int
) -> Iterator[CenterFile | None]:
    """Give the file of a centre while the context lasts; None where the driver alone has it.

    Args:
        size: Number of parameters.
        layout: Which of them are weights.
        settings: What the strategy asks of the centre.
        workers: K.
        servers: Processes that serve a range each; 0: none.

    Raises:
        TrainerError: There is no room for it.
        UsageError: More servers than parameters.
    """
    if servers > size:
        raise UsageError(f"servers: expected at most {size}, one per parameter; received {servers}")
    if not servers and not settings.is_shared:
        yield None
        return
    facts = size, layout, settings, workers, servers
    with shared_file(CenterFile("", *facts).length) as path:
        yield CenterFile(str(path), *facts)
