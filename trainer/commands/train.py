"""`train`: train a net, in one process or on workers."""

from __future__ import annotations

import argparse
import dataclasses
import secrets
import sys
from pathlib import Path
from typing import Any

from prototxt_parser.proto.caffe_pb2 import SolverParameter
from solvers import Action
from solvers.state_files import read_state, saved_seed
from trainer.commands.flags import port, positive, spark_setting
from trainer.describe import describe
from trainer.device import choose_device, gpu_numbers
from trainer.errors import UsageError
from trainer.extensions import Extensions, add_extension_flags, extensions_of
from trainer.launch import launch
from trainer.plan import IN_PROCESS, DistributedPlan
from trainer.recipe import Recipe, read_recipe
from trainer.signals import SignalPoll
from trainer.strategies import Options, get_strategy, options_from_conf, strategy_names

SINGLE = "single"


def make_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the program `train`."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, allow_abbrev=False)
    _add_flags(parser)
    return parser


def add_parser(commands: Any) -> None:
    """Add `train` to the subcommands of `torrefy`."""
    _add_flags(commands.add_parser("train", help="train a net", allow_abbrev=False))


def _add_flags(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("what to train")
    files.add_argument("--net", metavar="FILE", help="net prototxt, or the name of a shipped one")
    files.add_argument(
        "--solver", metavar="FILE", help="solver prototxt; default: the one beside the net"
    )
    files.add_argument(
        "--weights", metavar="FILE[,FILE...]", help="caffemodels to start from (finetuning)"
    )
    files.add_argument("--snapshot", metavar="FILE", help="solverstate to resume")
    files.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="where to look for databases and mean files that are not where the net says",
    )
    files.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for snapshots, metrics and log; default: beside snapshot_prefix",
    )
    files.add_argument("--level", type=int, default=0, help="level of the train net (default 0)")
    files.add_argument("--stage", default="", metavar="S[,S...]", help="stages of the train net")
    files.add_argument("--seed", type=int, help="random seed; default: the solver's random_seed")
    files.add_argument("--dry-run", action="store_true", help="print what the run will do and stop")
    files.add_argument("--verbose", action="store_true", help="log lines also on a terminal")
    add_extension_flags(parser)
    _add_place_flags(parser)
    _add_strategy_flags(parser)
    parser.set_defaults(run=run)


def _add_place_flags(parser: argparse.ArgumentParser) -> None:
    place = parser.add_argument_group("where to train")
    place.add_argument(
        "--device",
        default="auto",
        help="auto (as the solver's solver_mode says), cpu, cuda, cuda:N",
    )
    place.add_argument(
        "--gpu",
        default="",
        metavar="N",
        help="Caffe's flag: the number of the GPU, or all where there is one; same as cuda:N",
    )
    place.add_argument("--workers", type=int, default=1, metavar="K", help="workers (default 1)")
    place.add_argument(
        "--master",
        metavar="URL",
        help="Spark master, such as spark://host:7077; default with "
        f"several workers: local[K]. {IN_PROCESS}: no Spark, the workers take turns",
    )
    place.add_argument(
        "--conf",
        type=spark_setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of Spark's, such as spark.executor.memory=4g; may be given again",
    )
    place.add_argument(
        "--threads", type=positive, default=1, metavar="N", help="cores of each worker (default 1)"
    )
    place.add_argument(
        "--port",
        type=port,
        default=0,
        help="port of the driver's service (default 0: any free one)",
    )
    for name, effect in (("sigint", "stop"), ("sighup", "snapshot")):
        place.add_argument(
            f"--{name}-effect",
            default=effect,
            choices=[action.value for action in Action],
            help=f"what {name.upper()} does (default {effect})",
        )


def _add_strategy_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how workers exchange")
    names = [SINGLE, *strategy_names()]
    group.add_argument(
        "--strategy", choices=names, help="default: single with one worker, sparknet with several"
    )
    group.add_argument(
        "--per-worker",
        action="store_true",
        help="max_iter and the learning rate count the "
        "iterations of each worker, as in the papers; default: of all together",
    )
    group.add_argument(
        "--lr-per-worker",
        action="store_true",
        help="only the learning rate counts the iterations of each worker",
    )
    group.add_argument(
        "--deepspark-conf", type=Path, metavar="FILE", help="DeepSpark's own settings file"
    )
    for name, (field, strategies) in _option_fields().items():
        names_and_defaults = ", ".join(f"{s} {value}" for s, value in strategies.items())
        text = f"{field.metadata['help']} (default: {names_and_defaults})"
        group.add_argument(
            f"--{name.replace('_', '-')}", default=None, help=text, **_option_type(field)
        )


def _option_type(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """Return how argparse reads an option of a strategy."""
    if isinstance(field.default, bool):
        return {"action": "store_true"}
    if "choices" in field.metadata:
        return {"choices": field.metadata["choices"]}
    kind = type(field.default)
    return {"type": kind, "metavar": kind.__name__.upper()}


def _option_fields() -> dict[str, tuple[dataclasses.Field[Any], dict[str, Any]]]:
    """Return the fields of all strategies' options by name, with each strategy's default."""
    found: dict[str, tuple[dataclasses.Field[Any], dict[str, Any]]] = {}
    for strategy in strategy_names():
        for field in dataclasses.fields(get_strategy(strategy).options_type):
            found.setdefault(field.name, (field, {}))[1][strategy] = field.default
    return found


def run(args: argparse.Namespace) -> int:
    """Train as the flags say; returns the exit status."""
    if args.weights and args.snapshot:
        raise UsageError("Give a snapshot to resume training or weights to finetune but not both.")
    extensions = extensions_of(args)
    extensions.install()
    recipe = read_recipe(args.net, args.solver, args.out)
    _set_state(recipe.param, args)
    strategy, options = _strategy(args)
    device, note = _device(args, recipe.param)
    start = read_state(Path(args.snapshot)).iteration if args.snapshot else 0
    seed = _seed(args, recipe)
    plan = None
    if options is not None:
        plan = _plan(args, recipe, strategy, options, device, start, seed, extensions)
    if args.conf and (plan is None or plan.master == IN_PROCESS):
        raise UsageError("--conf sets Spark, and this run does without: give --workers or --master")
    for line in [*recipe.notes, *([note] if note else []), *describe(recipe, plan, device, start)]:
        print(line)
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
        poll=SignalPoll(Action(args.sigint_effect), Action(args.sighup_effect)),
        log_to_file=args.out is not None,
        log_to_terminal=args.verbose,
    )
    print(f"end        {result}")
    return 0


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
    given = {key: getattr(args, key) for key in _option_fields() if getattr(args, key) is not None}
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
    foreign = [f"--{key.replace('_', '-')}" for key in given if key not in own]
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
    return DistributedPlan(
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
    )


def _seed(args: argparse.Namespace, recipe: Recipe) -> int:
    """Return the run's seed: given, of the resumed run, of the solver file, or drawn."""
    if args.seed is not None:
        return int(args.seed)
    resumed = saved_seed(Path(args.snapshot)) if args.snapshot else None
    if resumed is not None:
        return resumed
    return recipe.param.random_seed if recipe.param.random_seed >= 0 else secrets.randbits(31)
