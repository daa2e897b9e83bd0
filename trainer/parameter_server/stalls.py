"""Callers that stop in the middle of a tensor: each would hold a thread of the service for ever."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final
from urllib.parse import unquote

# A part of a tensor, 1 MiB, comes in this time over 0.2 Mbit/s.
_LIMIT_S = 60.0
# For those who have not ended when the service does.
_LAST_LIMIT_S = 5.0


@final
class StallWatch:
    """Cuts the connection of a caller for which a service has waited too long.

    Flight lets a handler neither give up reading or writing nor ask for a deadline, and gRPC has
    only that which the caller itself has set. But what ends the connection ends both, so that is
    shut down, by the file descriptor that the system knows its other end by.

    A wait is for a part of a tensor: for the caller to send it, or to take it.
    """

    def __init__(self) -> None:
        self._limit_s = _LIMIT_S
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._waits: dict[object, tuple[str, float]] = {}
        self._thread = threading.Thread(target=self._run, name="stall watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def watched(self, peer: str) -> Callable[[Any], Any]:
        """Return what wraps a reader or writer of Flight's so that its waits are watched.

        Args:
            peer: The caller, as gRPC writes its address.
        """

        def wrap(stream: Any) -> Any:
            return _Watched(stream, lambda: self._waiting(peer))

        return wrap

    def hasten(self) -> None:
        """Give callers little time from now on, because the service ends."""
        self._limit_s = min(self._limit_s, _LAST_LIMIT_S)

    def close(self) -> None:
        """Watch no more."""
        self._ended.set()
        self._thread.join()

    @contextmanager
    def _waiting(self, peer: str) -> Iterator[None]:
        wait = object()
        with self._lock:
            self._waits[wait] = peer, time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                del self._waits[wait]

    def _run(self) -> None:
        while not self._ended.wait(min(self._limit_s, _LAST_LIMIT_S) / 4):
            since = time.monotonic() - self._limit_s
            with self._lock:
                stalled = {peer for peer, start in self._waits.values() if start < since}
            for peer in stalled:
                cut(peer)


@final
class _Watched:
    """A reader or a writer of Flight's; every wait in it is told."""

    def __init__(self, stream: Any, waiting: Callable[[], Any]) -> None:
        self._stream, self._waiting = stream, waiting

    @property
    def schema(self) -> Any:
        with self._waiting():
            return self._stream.schema

    def __iter__(self) -> Iterator[Any]:
        with suppress(StopIteration):
            while True:
                yield self.read_chunk()

    def read_chunk(self) -> Any:
        with self._waiting():
            return self._stream.read_chunk()

    def begin(self, schema: Any) -> None:
        with self._waiting():
            self._stream.begin(schema)

    def write_metadata(self, metadata: bytes) -> None:
        with self._waiting():
            self._stream.write_metadata(metadata)

    def write_batch(self, batch: Any) -> None:
        with self._waiting():
            self._stream.write_batch(batch)


def cut(peer: str) -> None:
    """Shut down the connection of this process to a peer.

    Args:
        peer: Its address as gRPC writes it: `ipv4:127.0.0.1:4711` or `ipv6:%5B::1%5D:4711`.
    """
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    for name in Path("/dev/fd").iterdir():
        with suppress(OSError), _duplicate(int(name.name)) as connection:
            other = connection.getpeername()
            # A socket for both kinds of addresses shows an old one as a new one.
            if (other[0].removeprefix("::ffff:"), other[1]) == (host.strip("[]"), int(port)):
                connection.shutdown(socket.SHUT_RDWR)


def _duplicate(descriptor: int) -> socket.socket:
    """Return a socket of one's own for the same connection: the number may become another's.

    Raises:
        OSError: It is no socket, or closed by now.
    """
    own = os.dup(descriptor)
    try:
        return socket.socket(fileno=own)
    except OSError:
        os.close(own)
        raise
