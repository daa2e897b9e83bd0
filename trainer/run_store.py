"""The checkpoints of a run from the command line, and how the run was started."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prototxt_parser.text import print_text
from trainer.checkpoints import open_store
from trainer.errors import UsageError
from trainer.plan import NO_CHECKPOINTS, Checkpoints
from trainer.recipe import Recipe

if TYPE_CHECKING:
    from trainer.checkpoints.checkpoint import Checkpoint
    from trainer.checkpoints.store import CheckpointStore


@dataclass(frozen=True)
class RunStore:
    """Where a run saves itself.

    Attributes:
        checkpoints: Where, and how often.
        started: How the run was started, as JSON values: `words` of the command line, `folder` in
            which it was given; later `seed` and `solver`.
        checkpoint: From where it goes on; None for a new run.
    """

    checkpoints: Checkpoints
    started: dict[str, Any]
    checkpoint: Checkpoint | None = None

    @property
    def iteration(self) -> int:
        """Where the run goes on; 0 for a new one."""
        return 0 if self.checkpoint is None else self.checkpoint.iteration

    def notes(self, recipe: Recipe) -> list[str]:
        """Return what the user has to know of a run that goes on, a sentence each."""
        if self.checkpoint is None:
            return []
        found = [f"going on from {self.checkpoint.where}, iteration {self.iteration}"]
        if self.started["solver"] != print_text(recipe.param):
            found.append("the solver is not as it was when the run was started: flags, or its file")
        return found

    def open(self, seed: int, recipe: Recipe) -> CheckpointStore:
        """Take the store for this run.

        Args:
            seed: Of the run.
            recipe: What it trains.

        Raises:
            TrainerError: It holds another run, or cannot be written.
        """
        store = open_store(self.checkpoints.uri, self.checkpoints.keep)
        started = {**self.started, "seed": seed, "solver": print_text(recipe.param)}
        store.write_run(started, resumes=self.checkpoint is not None)
        return store


def new_run(args: argparse.Namespace, recipe: Recipe) -> RunStore | None:
    """Return where a new run saves itself: as the flags say, or beside its snapshots.

    Returns:
        None if it is not to; or if nobody said where, and pyarrow is not installed.
    """
    if args.checkpoints == NO_CHECKPOINTS:
        return None
    if args.checkpoints is None and importlib.util.find_spec("pyarrow") is None:
        return None
    uri = args.checkpoints or f"{recipe.param.snapshot_prefix}_checkpoints"
    started = {"words": args.words, "folder": str(Path.cwd())}
    return RunStore(_checkpoints(uri, args), started)


def resumed(args: argparse.Namespace) -> RunStore:
    """Return the run that `--resume` names.

    Raises:
        UsageError: There is none, or no whole checkpoint of it.
        TrainerError: The store cannot be read.
    """
    store = open_store(args.resume, args.keep_checkpoints)
    started, checkpoint = store.read_run(), store.latest()
    if started is None or checkpoint is None:
        raise UsageError(
            f"--resume {args.resume}: expected checkpoints of a run; there is no whole one. A run "
            "says where it saves itself when it starts; a Caffe snapshot is resumed by --snapshot"
        )
    return RunStore(_checkpoints(args.resume, args), started, checkpoint)


def resumed_words(words: Sequence[str]) -> list[str]:
    """Return a command line with that of the run which `--resume` names before its own flags.

    The working directory becomes that of the run, because its paths count from there.

    Raises:
        UsageError: There is no such run, or its folder is not here.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--resume")
    try:
        uri = parser.parse_known_args(words)[0].resume
    except argparse.ArgumentError:  # the parser of the command says it better
        return list(words)
    if uri is None:
        return list(words)
    if "://" not in uri and not Path(uri).is_dir():
        raise UsageError(f"--resume {uri}: no such folder")
    started = open_store(uri, 1).read_run()
    if started is None:
        raise UsageError(f"--resume {uri}: no run has saved itself there")
    command = list(words[:1]) if words[0] == "train" else []
    own = list(words[len(command) :])
    if "://" not in uri:  # it counts from here
        own += ["--resume", str(Path(uri).absolute())]
    try:
        os.chdir(started["folder"])
    except OSError as error:
        raise UsageError(
            f"--resume {uri}: the run was started in {started['folder']}, from where its paths "
            f"count: {error.strerror}"
        ) from error
    return [*command, *started["words"], *own]


def _checkpoints(uri: str, args: argparse.Namespace) -> Checkpoints:
    return Checkpoints(uri, args.keep_checkpoints, args.checkpoint_interval)
