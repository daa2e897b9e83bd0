"""How busy others keep the machine while something is timed."""

from __future__ import annotations

from contextlib import suppress
from typing import final

from trainer.errors import TrainerError


@final
class LoadMeter:
    """Measures the CPU time that is not a process's own, nor that of those it has started.

    Args:
        pid: The process. It and its children are looked at by `sample`; what one uses after the
            last sample counts as others'.

    Raises:
        TrainerError: psutil is not installed.
    """

    def __init__(self, pid: int) -> None:
        try:
            import psutil
        except ImportError:
            raise TrainerError(
                "torrefy compare measures the load of the machine with psutil, which is not "
                "installed: pip install 'torrefy[compare]'"
            ) from None
        self._psutil, self._root = psutil, psutil.Process(pid)
        self._own: dict[tuple[int, float], float] = {}
        self._before = psutil.cpu_times()

    def sample(self) -> None:
        """Note how much CPU time the process and its children have used."""
        gone = self._psutil.Error
        with suppress(gone):
            for process in (self._root, *self._root.children(recursive=True)):
                with suppress(gone):
                    times = process.cpu_times()
                    self._own[process.pid, process.create_time()] = times.user + times.system

    def others(self) -> float:
        """Return the share of all cores' time since the start that others used, 0 to 1."""
        now = self._psutil.cpu_times()
        passed = {name: getattr(now, name) - getattr(self._before, name) for name in now._fields}
        # The kernel counts guests' time under user and nice as well.
        total = sum(passed.values()) - passed.get("guest", 0.0) - passed.get("guest_nice", 0.0)
        busy = total - passed["idle"] - passed.get("iowait", 0.0)
        return min(1.0, max(0.0, busy - sum(self._own.values())) / total) if total > 0 else 0.0
