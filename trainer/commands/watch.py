"""`torrefy watch`: a live view of a run."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.commands.flags import seconds
from trainer.errors import DataError, UsageError
from trainer.plotting.records import file_of_run
from trainer.watching.follower import Follower

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_REFRESH_S = 0.5


def add_parser(commands: Any) -> None:
    """Add `watch` to the subcommands of `torrefy`."""
    parser = commands.add_parser(
        "watch",
        help="see how a run is getting on, live",
        description="Show a run that is under way, in this terminal or another one, until it ends "
        "or Ctrl-C is pressed; a run that is over is shown once. Where the output is no terminal, "
        "it is shown once too.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "run_path",
        type=Path,
        metavar="RUN",
        help="the run's folder (what --out named), or its metrics file",
    )
    parser.add_argument("--once", action="store_true", help="show how it is now, and end")
    parser.add_argument(
        "--wait",
        type=seconds,
        default=0.0,
        metavar="S",
        help="seconds to wait for the run to be there (default 0)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show a run; returns the exit status.

    Raises:
        UsageError: rich is not installed.
        DataError: There is no such run, or its file cannot be read.
    """
    console = _console()
    follower = Follower(_file(args.run_path, args.wait))
    try:
        follower.read()
        if console.is_terminal and not args.once:
            _follow(follower, console)
    except KeyboardInterrupt:
        pass  # the usual way to end a live view
    height = console.height if console.is_terminal else None
    console.print(_frame(follower, console, height))
    return 0


def _console() -> Console:
    try:
        from rich.console import Console
    except ImportError:
        raise UsageError("torrefy watch needs rich: pip install 'torrefy[watch]'") from None
    return Console(highlight=False)


def _file(path: Path, wait_s: float) -> Path:
    """Return the metrics file of a run, once it is there.

    Raises:
        DataError: It has not come.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            file = file_of_run(path)
            if file.exists():
                return file
            raise DataError(
                f"{path}: no such run; name the folder that --out named, or a metrics file. "
                "--wait S waits for it"
            )
        except DataError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_REFRESH_S)


def _follow(follower: Follower, console: Console) -> None:
    """Draw the run again and again until it is over."""
    from rich.live import Live

    with Live(console=console, screen=True, auto_refresh=False) as live:
        while not follower.state.is_over:
            live.update(_frame(follower, console, console.height), refresh=True)
            time.sleep(_REFRESH_S)
            follower.read()


def _frame(follower: Follower, console: Console, height: int | None) -> RenderableType:
    from trainer.watching.view import frame

    return frame(follower.state, follower.quiet_s, console.width, height)
