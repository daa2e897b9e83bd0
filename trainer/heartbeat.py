"""How the driver hears of a worker, and the worker of the driver, however busy the worker is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

from trainer.links import Control, DriverLink

_BEAT_S = 1.0
# An exchange is reported at once, if it is not the next of many.
_SOON_S = 0.1


@final
class Heartbeat:
    """Reports to the driver about once a second, from a thread of its own. Use `beating`.

    A worker that is stopped, or whose machine is gone, falls silent; one that computes long does
    not.

    Args:
        driver: Connection to the driver.

    Attributes:
        control: What the driver wanted last.
    """

    def __init__(self, driver: DriverLink) -> None:
        self._driver = driver
        self._records: list[Mapping[str, Any]] = []
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._ended = threading.Event()
        self._error: Exception | None = None
        self._last = 0.0
        self.control = Control()

    def add(self, record: Mapping[str, Any]) -> None:
        """Have a record reported with the next beat."""
        with self._lock:
            self._records.append(record)

    def beat(self) -> None:
        """Report now.

        Raises:
            TrainerError: The driver does not answer, or has replaced this worker.
        """
        with self._turn:
            with self._lock:
                records, self._records = self._records, []
            self._last = time.monotonic()
            self.control = self._driver.report(records)

    def beat_soon(self) -> None:
        """Report now, unless that was done a moment ago.

        Raises:
            TrainerError: As of `beat`; also if the thread's own reports have failed.
        """
        if self._error is not None:
            raise self._error
        if time.monotonic() - self._last >= _SOON_S:
            self.beat()

    def run(self) -> None:
        """Beat until the end."""
        while not self._ended.wait(_BEAT_S):
            try:
                self.beat()
            except Exception as error:  # whatever it is, the worker's own thread raises it
                self._error = error
                return

    def end(self) -> None:
        """Beat no more."""
        self._ended.set()


@contextmanager
def beating(driver: DriverLink, name: str) -> Iterator[Heartbeat]:
    """Beat while the context lasts.

    Args:
        driver: Connection to the driver.
        name: Of the thread: log records of a worker in the driver's own process go by it.
    """
    heart = Heartbeat(driver)
    thread = threading.Thread(target=heart.run, name=name, daemon=True)
    thread.start()
    try:
        yield heart
    finally:
        heart.end()
        thread.join()


@final
class LogRecords(logging.Handler):
    """Hands a worker's log records to its heartbeat, for the driver's log.

    Args:
        heart: Takes them.
        level: The least one that is sent.
    """

    def __init__(self, heart: Heartbeat, level: int) -> None:
        super().__init__(level)
        self._heart = heart

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        line = {"kind": "log", "level": record.levelno, "message": record.getMessage()}
        self._heart.add(line)
