"""The workers of a synchronous run as a torch.distributed group over gloo.

torch.distributed neither authenticates nor encrypts: use it inside one trusted network only.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import final

import torch.distributed as dist
from torch import Tensor

from trainer.links import PeerLostError, Traffic

_LOOPBACK = "127.0.0.1"


@final
class GlooGroup:
    """A `Group` over the process group of this process. Use `joined`.

    Attributes:
        size: Number of workers.
        traffic: The tensors that were averaged; how gloo divides them up is its own.
    """

    def __init__(self, size: int, timeout_s: float) -> None:
        self.size, self._timeout_s = size, timeout_s
        self.traffic = Traffic()

    def mean_(self, tensor: Tensor) -> None:
        """See `Group.mean_`. Two ranks give the same bits in any order; more may differ by one."""
        try:
            dist.all_reduce(tensor)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise PeerLostError(
                f"another worker has ended, or did not come within {self._timeout_s:g} s ({reason})"
            ) from error
        tensor.div_(self.size)
        self.traffic += Traffic(tensor.nbytes, tensor.nbytes)


@contextmanager
def joined(
    rank: int,
    size: int,
    host: str,
    timeout_s: float,
    publish: Callable[[str], str],
) -> Iterator[GlooGroup]:
    """Join the group for the time of the context.

    Args:
        rank: This worker.
        size: Number of workers.
        host: Address of this worker that the others reach; rank 0 listens there.
        timeout_s: Longest wait for the others, now and in every operation.
        publish: Gives every worker what rank 0 puts in: its `host:port`.

    Raises:
        PeerLostError: Not all came in time.
    """
    listener = socket.create_server((host, 0)) if rank == 0 else None
    address = publish(f"{host}:{listener.getsockname()[1]}" if listener else "")
    if host == _LOOPBACK:
        # gloo listens where the host's name leads to, which need not be the loopback.
        interface = "lo0" if sys.platform == "darwin" else "lo"
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    try:
        _connect(rank, size, address, listener, timedelta(seconds=timeout_s))
    except RuntimeError as error:
        raise PeerLostError(
            f"the workers could not connect within {timeout_s:g} s ({str(error).splitlines()[0]}); "
            "if a host has several networks, set GLOO_SOCKET_IFNAME on it (spark.executorEnv)"
        ) from error
    try:
        yield GlooGroup(size, timeout_s)
    finally:
        dist.destroy_process_group()


def _connect(
    rank: int, size: int, address: str, listener: socket.socket | None, timeout: timedelta
) -> None:
    """Start the process group; rank 0 serves the others' meeting point on `listener`."""
    host, _, port = address.rpartition(":")
    store = dist.TCPStore(  # type: ignore[attr-defined]  # documented, but not in __all__
        host,
        int(port),
        is_master=rank == 0,
        timeout=timeout,
        wait_for_workers=False,
        master_listen_fd=listener.detach() if listener else None,
    )
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
