"""Log records as Caffe's log lines: `I1121 09:30:05.123456 12345 solver.cpp:218] message`."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prototxt_parser.errors import PrototxtError
from solvers.errors import SolverError
from trainer.errors import TrainerError

logger = logging.getLogger(__name__)

WORKER_THREAD = "worker"  # how the names of threads that stand for other processes begin

_OUR_LOGGERS = ("prototxt_parser", "solvers", "trainer")

_SOURCES = {
    "solvers.updater": "sgd_solver.cpp",
    "solvers.lr_policies": "sgd_solver.cpp",
    "solvers.snapshots": "sgd_solver.cpp",
    "solvers": "solver.cpp",
    "prototxt_parser": "net.cpp",
    "trainer.data": "data_layer.cpp",
    "trainer.data.image_set": "convert_imageset.cpp",
    "trainer.data.mean_file": "compute_image_mean.cpp",
    "trainer.commands.convert_imageset": "convert_imageset.cpp",
    "trainer.commands.compute_mean": "compute_image_mean.cpp",
    "trainer.commands.extract_features": "extract_features.cpp",
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


def _is_drivers(record: logging.LogRecord) -> bool:
    """Return whether a record is to be seen: of workers in this process, only what went wrong."""
    is_workers = (record.threadName or "").startswith(WORKER_THREAD)
    return record.levelno > logging.INFO or not is_workers


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


@contextmanager
def log_lines(path: Path | None = None, *, to_terminal: bool = True) -> Iterator[None]:
    """Send log records, as Caffe's lines, to a file and to standard error.

    A failure that ends the run is the last line of the file, at glog's level F. On standard error
    the command line reports it.

    Args:
        path: The file, or None.
        to_terminal: Whether standard error gets the lines.
    """
    terminal: list[logging.Handler] = [logging.StreamHandler()] if to_terminal else []
    handlers = terminal + ([LogFile(path)] if path is not None else [])
    root = logging.getLogger()
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in _OUR_LOGGERS}
    for ours in levels:
        ours.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(CaffeFormatter())
        handler.addFilter(_is_drivers)
        root.addHandler(handler)
    try:
        yield
    except (PrototxtError, SolverError, TrainerError) as error:
        for handler in terminal:
            root.removeHandler(handler)
        if path is not None:
            logger.critical("%s", error)
        raise
    finally:
        for ours, level in levels.items():
            ours.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
