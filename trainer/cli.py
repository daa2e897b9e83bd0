"""The programs `train` and `torrefy`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from prototxt_parser.errors import PrototxtError, WriteError
from solvers.errors import SolverError
from trainer.commands import (
    compare,
    compute_mean,
    convert_imageset,
    data,
    device_query,
    draw,
    extract_features,
    package,
    parse_log,
    plot,
    strategies,
    summary,
    test,
    time,
    train,
    upgrade,
    watch,
)
from trainer.errors import TrainerError, UsageError
from trainer.extensions import install_named
from trainer.run_store import resumed_words

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

# Each module adds its subcommand, whose parser names the function to run.
_COMMANDS = (
    train,
    test,
    time,
    device_query,
    parse_log,
    plot,
    watch,
    data,
    convert_imageset,
    compute_mean,
    extract_features,
    draw,
    upgrade,
    summary,
    strategies,
    package,
    compare,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `torrefy`; returns the exit status: 0, 1 failed, 2 bad usage or file, 130 interrupted."""
    return _run(_torrefy_parser, sys.argv[1:] if argv is None else argv)


def train_main(argv: Sequence[str] | None = None) -> int:
    """Run `train`: the same as `torrefy train`."""
    return _run(_train_parser, sys.argv[1:] if argv is None else argv)


def _torrefy_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torrefy",
        description="Train Caffe nets as PyTorch modules, in one process or on Spark.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"torrefy {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def _train_parser() -> argparse.ArgumentParser:
    parser = train.make_parser("train")
    parser.add_argument("--version", action="version", version=f"torrefy {_version()}")
    return parser


def _run(make_parser: Callable[[], argparse.ArgumentParser], argv: Sequence[str]) -> int:
    words = [_long_flag(word) for word in argv]
    _prepare_streams()
    try:
        words = resumed_words(words)
        install_named(words)
        args = make_parser().parse_args(words)
        args.words = words[1:] if words[:1] == ["train"] else words
        status = int(args.run(args))
        sys.stdout.flush()
        return status
    except UsageError as error:
        return _complain(error, EXIT_USAGE)
    except (TrainerError, WriteError) as error:
        return _complain(error, EXIT_FAILED)
    except (PrototxtError, SolverError) as error:
        return _complain(error, EXIT_USAGE)
    except KeyboardInterrupt:
        return _complain("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        return _complain(f"{error.filename or 'input or output'}: {error.strerror}", EXIT_FAILED)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        message = f"out of memory ({error}); smaller batches or images need less"
        return _complain(message, EXIT_FAILED)


def _prepare_streams() -> None:
    """Have streams that take whatever is printed.

    One that the shell closed (`>&-`) is opened: else the next file that is opened takes its place.
    A name that the terminal's encoding lacks is escaped, as standard error does by itself.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def _is_out_of_memory(error: Exception) -> bool:
    # PyTorch raises a RuntimeError for the CPU's memory, and names no class for it.
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def _long_flag(word: str) -> str:
    """Return Caffe's spelling of a flag, `-sigint_effect=stop`, as ours, `--sigint-effect=stop`."""
    if not word.startswith("-") or len(word.lstrip("-")) < 2 or word.lstrip("-")[0].isdigit():
        return word
    flag, equals, value = word.partition("=")
    return "--" + flag.lstrip("-").replace("_", "-") + equals + value


def _complain(error: object, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)  # noqa: T201
    return status


def _version() -> str:
    try:
        return version("torrefy")
    except PackageNotFoundError:  # run from a checkout
        return "(not installed)"
