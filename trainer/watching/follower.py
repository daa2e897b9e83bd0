"""Reading a metrics file while it is written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import final

from trainer.errors import DataError
from trainer.plotting.records import parse_line
from trainer.watching.state import RunState

_CHUNK = 1 << 20
_FINGERPRINT = 256  # bytes at the front by which another run is told


@final
class Follower:
    """Keeps the state of a run up to date with its metrics file.

    Every byte is read once. A file that was replaced, or begun anew, is read from its start.

    Args:
        path: The file.

    Attributes:
        path: The same.
        state: The run as of the last whole line that was read.
        quiet_s: Seconds since something was last written to it, as of the last reading.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.state, self.quiet_s = path, RunState(), 0.0
        self._offset, self._front, self._rest = 0, b"", b""

    def read(self) -> None:
        """Take in what was written since the last call; a last line that is not whole waits.

        Raises:
            DataError: The file cannot be read, or is no metrics file.
        """
        try:
            with self.path.open("rb") as file:
                front = file.read(_FINGERPRINT)
                size = file.seek(0, 2)
                if size < self._offset or not front.startswith(self._front):
                    self._begin_anew()
                self._front = front
                file.seek(self._offset)
                while chunk := file.read(_CHUNK):
                    self._offset += len(chunk)
                    self._take(chunk)
            self.quiet_s = max(0.0, time.time() - self.path.stat().st_mtime)
        except OSError as error:
            raise DataError(f"{self.path}: cannot read the run: {error.strerror}") from error

    def _begin_anew(self) -> None:
        self.state, self._offset, self._rest = RunState(), 0, b""

    def _take(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            record = parse_line(line.decode(errors="replace"))
            if record is not None:
                self.state.add(record)
            elif self.state.is_empty and line.strip():
                raise DataError(
                    f"{self.path}: expected a metrics file, JSON lines that `train` writes; its "
                    f"first line is {line[:60]!r}"
                )
