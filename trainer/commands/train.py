"""`train`: train a net, in one process or on workers."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import secrets
import sys
from pathlib import Path
from typing import Any

from prototxt_parser.proto.caffe_pb2 import SolverParameter
from solvers import Action
from solvers.state_files import read_state, saved_seed
from trainer.commands.train_flags import add_flags, option_fields
from trainer.describe import describe
from trainer.device import choose_device, gpu_numbers
from trainer.errors import UsageError
from trainer.extensions import Extensions, extensions_of
from trainer.launch import launch
from trainer.plan import IN_PROCESS, SINGLE, DistributedPlan
from trainer.plan_rules import check_features
from trainer.recipe import Recipe, read_recipe
from trainer.run_store import RunStore, new_run, resumed
from trainer.signals import SignalPoll
from trainer.strategies import Options, flag, get_strategy, options_from_conf, strategy_names
from trainer.tensorboard import import_writer


def make_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the program `train`."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, allow_abbrev=False)
    add_flags(parser)
    parser.set_defaults(run=run)
    return parser


def add_parser(commands: Any) -> None:
    """Add `train` to the subcommands of `torrefy`."""
    parser = commands.add_parser("train", help="train a net", allow_abbrev=False)
    add_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train as the flags say; returns the exit status."""
    if args.weights and args.snapshot:
        raise UsageError("Give a snapshot to resume training or weights to finetune but not both.")
    extensions = extensions_of(args)
    extensions.install()
    runs = _resumed(args)
    recipe = read_recipe(args.net, args.solver, args.out)
    _set_state(recipe.param, args)
    strategy, options = _strategy(args)
    device, note = _device(args, recipe.param)
    start, seed = _start(args, runs), _seed(args, recipe, runs)
    plan = None
    if options is None:
        _refuse_flags_of_workers(args)
    else:
        plan = _plan(args, recipe, strategy, options, device, start, seed, extensions)
        runs = runs or new_run(args, recipe)
        plan = dataclasses.replace(plan, checkpoints=runs.checkpoints if runs else None)
    notes = [*recipe.notes, *([note] if note else []), *(runs.notes(recipe) if runs else [])]
    for line in [*notes, *describe(recipe, plan, device, start)]:
        print(line)
    tensorboard = _tensorboard(args, recipe.param)
    folder = Path(recipe.param.snapshot_prefix).parent
    if args.out is None and not folder.is_dir():
        print(f"{folder}: no such folder for snapshots; make it, or give --out DIR")
    if args.dry_run:
        return 0
    sys.stdout.flush()
    result = launch(
        recipe,
        plan,
        device=device,
        seed=seed,
        data_dir=args.data,
        snapshot=args.snapshot,
        runs=runs,
        poll=SignalPoll(Action(args.sigint_effect), Action(args.sighup_effect)),
        tensorboard=tensorboard,
        log_to_file=args.out is not None,
        log_to_terminal=args.verbose,
    )
    for line in result.workers:
        print(line)
    print(f"end        {result}")
    return 0


def _resumed(args: argparse.Namespace) -> RunStore | None:
    """Return the run that goes on by --resume, None for another; it starts from no other file."""
    if not args.resume:
        return None
    args.snapshot = args.weights = None
    return resumed(args)


def _start(args: argparse.Namespace, runs: RunStore | None) -> int:
    """Return the iteration at which the run begins."""
    if runs is not None:
        return runs.iteration
    return read_state(Path(args.snapshot)).iteration if args.snapshot else 0


def _refuse_flags_of_workers(args: argparse.Namespace) -> None:
    if args.conf:
        raise UsageError("--conf sets Spark, and one process does without: give --workers")
    if args.checkpoints or args.resume:
        raise UsageError(
            "strategy single makes no checkpoints: it saves Caffe's snapshots, as `snapshot` in "
            "the solver file says, and goes on from one with --snapshot"
        )


def _tensorboard(args: argparse.Namespace, param: SolverParameter) -> Path | None:
    """Return the folder for event files, and print it; None for none.

    Raises:
        UsageError: They cannot be written here.
    """
    if args.tensorboard is None:
        return None
    import_writer()
    beside = Path(f"{param.snapshot_prefix}_tensorboard")
    folder: Path = beside if args.tensorboard is True else args.tensorboard
    print(f"tensorboard {folder}")
    return folder


def _device(args: argparse.Namespace, param: SolverParameter) -> tuple[str, str]:
    """Return the device by --gpu, --device or the solver file, and a sentence about it, or ""."""
    numbers = gpu_numbers(args.gpu)
    if not numbers:
        return choose_device(args.device, param)
    if args.device != "auto":
        raise UsageError(f"give --gpu or --device; received {args.gpu} and {args.device}")
    if len(numbers) > 1:
        raise UsageError(
            f"-gpu {args.gpu}: a worker trains on one GPU; received {len(numbers)}. For several "
            f"give --device cuda --workers {len(numbers)}: each worker takes the next GPU"
        )
    return f"cuda:{numbers[0]}", ""


def _set_state(param: SolverParameter, args: argparse.Namespace) -> None:
    """Put level and stages into the train net's state, and weights into the settings."""
    if args.level:
        param.train_state.level = args.level
    param.train_state.stage.extend(stage for stage in args.stage.split(",") if stage)
    if args.weights:
        param.weights[:] = [args.weights]
    elif args.snapshot:
        del param.weights[:]


def _strategy(args: argparse.Namespace) -> tuple[str, Options | None]:
    """Return the strategy's name and options; no options for a run in one process.

    Raises:
        UsageError: A flag of another strategy, or numbers that contradict each other.
    """
    alone = args.workers == 1 and args.master is None
    name = args.strategy or (SINGLE if alone else "sparknet")
    given = {key: getattr(args, key) for key in option_fields() if getattr(args, key) is not None}
    if args.deepspark_conf is not None and name != "deepspark":
        raise UsageError(f"--deepspark-conf is a flag of strategy deepspark; this is {name}")
    if name == SINGLE:
        if not alone:
            raise UsageError(
                "strategy single is one process: leave out --workers and --master, or choose "
                f"--strategy {' or '.join(strategy_names())}"
            )
        _refuse_foreign(name, given, set())
        return name, None
    options_type = get_strategy(name).options_type
    _refuse_foreign(name, given, {field.name for field in dataclasses.fields(options_type)})
    if args.deepspark_conf is not None:
        return name, dataclasses.replace(options_from_conf(args.deepspark_conf), **given)
    return name, options_type(**given)


def _refuse_foreign(name: str, given: dict[str, Any], own: set[str]) -> None:
    foreign = [flag(key) for key in given if key not in own]
    if foreign:
        raise UsageError(f"{', '.join(foreign)}: not a flag of strategy {name}")


def _plan(
    args: argparse.Namespace,
    recipe: Recipe,
    strategy: str,
    options: Options,
    device: str,
    start: int,
    seed: int,
    extensions: Extensions,
) -> DistributedPlan:
    master = args.master
    if master is None and args.workers == 1:
        master = IN_PROCESS  # one worker needs no JVM
    if args.conf and master == IN_PROCESS:
        raise UsageError("--conf sets Spark, and these workers do without: give --master")
    plan = DistributedPlan(
        strategy=strategy,
        options=options,
        num_workers=args.workers,
        max_iter=recipe.param.max_iter,
        start_iteration=start,
        per_worker=args.per_worker,
        lr_per_worker=args.lr_per_worker,
        seed=seed,
        data_dir=args.data,
        device=device,
        threads=args.threads,
        master=master,
        port=args.port,
        extensions=extensions,
        spark_conf=tuple(args.conf),
        start_timeout_s=args.start_timeout,
        wait_timeout_s=args.wait_timeout,
        task_attempts=args.max_failures,
        encryption=args.encryption,
        servers=args.servers,
        exchange_dtype=args.exchange_dtype,
        overlap=args.overlap,
        straggler_s=args.straggler_timeout,
        replaces_stragglers=args.drop_stragglers,
        log_level=logging.INFO if args.verbose else logging.WARNING,
    )
    check_features(plan)
    return plan


def _seed(args: argparse.Namespace, recipe: Recipe, runs: RunStore | None) -> int:
    """Return the run's seed: given, of the resumed run, of the solver file, or drawn."""
    if args.seed is not None:
        return int(args.seed)
    if runs is not None:
        return int(runs.started["seed"])
    resumed = saved_seed(Path(args.snapshot)) if args.snapshot else None
    if resumed is not None:
        return resumed
    return recipe.param.random_seed if recipe.param.random_seed >= 0 else secrets.randbits(31)
