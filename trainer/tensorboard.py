"""The records of a run as event files of TensorBoard, beside its metrics file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from trainer.errors import TrainerError, UsageError

_FLUSH_S = 10  # whoever looks at a run that is under way sees it so late
_EXCHANGED = (
    *("loss", "lr", "compute_s", "exchange_s", "staleness"),
    *("sent_bytes", "received_bytes"),
)
# One chart for each measure, a line for each worker, under Custom Scalars.
_LAYOUT = {"workers": {name: ["Multiline", [rf"workers/\d+/{name}$"]] for name in _EXCHANGED}}


def import_writer() -> Any:
    """Return PyTorch's `SummaryWriter`.

    Raises:
        UsageError: The package tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "--tensorboard needs the package tensorboard: pip install 'torrefy[tensorboard]'"
        ) from None
    return SummaryWriter


@final
class TensorBoardFiles:
    """Writes records as scalars over the iterations of the run; starts and events as texts.

    `train/loss`, `train/lr`; `test/accuracy` and the other outputs of the test net, `test_1/…` of
    the next; `workers/0/loss`, `…/compute_s`, `…/staleness`, … of each worker.

    Args:
        folder: Made if it is not there. Files of earlier runs stay, and TensorBoard leaves out what
            is in them from `iteration` on.
        iteration: Where the run starts.

    Raises:
        TrainerError: The folder cannot be written.
    """

    def __init__(self, folder: Path, iteration: int) -> None:
        self._folder = folder
        try:
            self._writer = import_writer()(folder, purge_step=iteration, flush_secs=_FLUSH_S)
        except OSError as error:
            raise self._failure(error) from error

    def write(self, kind: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Add what a record says."""
        try:
            if kind == "start":
                self._add_start(iteration, values)
            elif kind == "event":
                self._writer.add_text("events", _table(values), iteration)
            for tag, value in _scalars(kind, values):
                self._writer.add_scalar(tag, value, iteration)
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file; what did not fit was reported when it was written."""
        with suppress(OSError):
            self._writer.close()

    def _add_start(self, iteration: int, values: Mapping[str, Any]) -> None:
        self._writer.add_text("start", _table(values), iteration)
        if values["workers"] > 1:
            self._writer.add_custom_scalars(_LAYOUT)

    def _failure(self, error: OSError) -> TrainerError:
        return TrainerError(f"{self._folder}: cannot write event files: {error.strerror or error}")


def _scalars(kind: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the curves that a record adds to, and the values."""
    if kind == "train":
        group, names = "train", list(values)
    elif kind == "test":
        group = f"test_{values['net']}" if values["net"] else "test"
        names = [name for name in values if name != "net"]
    elif kind == "exchange":
        group, names = f"workers/{values['rank']}", list(_EXCHANGED)
    else:
        return
    for name in names:
        if values[name] is not None:
            yield f"{group}/{name}", values[name]


def _table(values: Mapping[str, Any]) -> str:
    """Return Markdown with a row for each value."""
    rows = [f"| {name} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(text.replace("|", r"\|").split())
