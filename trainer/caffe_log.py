"""Log records as Caffe's log lines: `I1121 09:30:05.123456 12345 solver.cpp:218] message`."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import suppress
from pathlib import Path

from trainer.errors import TrainerError

_SOURCES = {
    "solvers.updater": "sgd_solver.cpp",
    "solvers.lr_policies": "sgd_solver.cpp",
    "solvers.snapshots": "sgd_solver.cpp",
    "solvers": "solver.cpp",
    "prototxt_parser": "net.cpp",
    "trainer.data": "data_layer.cpp",
    "trainer": "caffe.cpp",
}
_LEVELS = {logging.DEBUG: "I", logging.INFO: "I", logging.WARNING: "W", logging.ERROR: "E"}


class CaffeFormatter(logging.Formatter):
    """Formats records so that parsers of Caffe's logs read them.

    The file name is that of the Caffe file which prints such a message; the line is ours.
    Source: the prefix of glog, as Caffe's tools set it up.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return prefix and message, and the traceback if there is one."""
        stamp = time.strftime("%m%d %H:%M:%S", time.localtime(record.created))
        microseconds = int(record.created % 1 * 1e6)
        level = _LEVELS.get(record.levelno, "F")
        line = (
            f"{level}{stamp}.{microseconds:06d} {(record.process or 0) % 100000:5d} "
            f"{_source(record.name)}:{record.lineno}] {record.getMessage()}"
        )
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _source(logger: str) -> str:
    name = logger
    while name not in _SOURCES and "." in name:
        name = name.rpartition(".")[0]
    return _SOURCES.get(name, f"{logger.rpartition('.')[2]}.py")


class LogFile(logging.FileHandler):
    """A log file whose failure, such as a full disk, ends the run with one message."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)

    def handleError(self, record: logging.LogRecord) -> None:
        """Raise what went wrong; the standard handler prints a traceback for every line.

        Raises:
            TrainerError: Always.
        """
        del record
        error = sys.exc_info()[1]
        raise TrainerError(f"{self.baseFilename}: cannot write the log: {error}") from error

    def close(self) -> None:
        """Close the file; what did not fit was reported when it was written."""
        with suppress(OSError):
            super().close()
