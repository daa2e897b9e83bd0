"""The flags of `train`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from solvers import Action
from trainer.commands.flags import not_negative, port, positive, seconds, spark_setting
from trainer.extensions import add_extension_flags
from trainer.plan import ENCRYPTION, EXCHANGE_DTYPES, IN_PROCESS, NO_CHECKPOINTS, SINGLE
from trainer.strategies import flag, get_strategy, strategy_names


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add all flags of `train` to a parser."""
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
        help="where to look for databases and mean files that are not where the net says; with "
        "{rank} in it each of several workers reads a folder of its own",
    )
    files.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for snapshots, metrics and log; default: beside snapshot_prefix",
    )
    files.add_argument(
        "--tensorboard",
        nargs="?",
        type=Path,
        const=True,
        metavar="DIR",
        help="write event files for TensorBoard too; default folder: beside the metrics",
    )
    files.add_argument("--level", type=int, default=0, help="level of the train net (default 0)")
    files.add_argument("--stage", default="", metavar="S[,S...]", help="stages of the train net")
    files.add_argument("--seed", type=int, help="random seed; default: the solver's random_seed")
    files.add_argument("--dry-run", action="store_true", help="print what the run will do and stop")
    files.add_argument("--verbose", action="store_true", help="log lines also on a terminal")
    add_extension_flags(parser)
    _add_place_flags(parser)
    _add_strategy_flags(parser)
    _add_exchange_flags(parser)
    _add_failure_flags(parser)


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
    for name, (field, strategies) in option_fields().items():
        names_and_defaults = ", ".join(f"{s} {value}" for s, value in strategies.items())
        text = f"{field.metadata['help']} (default: {names_and_defaults})"
        group.add_argument(flag(name), default=None, help=text, **_option_type(field))


def _option_type(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """Return how argparse reads an option of a strategy."""
    if isinstance(field.default, bool):
        return {"action": "store_true"}
    if "choices" in field.metadata:
        return {"choices": field.metadata["choices"]}
    kind = type(field.default)
    return {"type": kind, "metavar": kind.__name__.upper()}


def option_fields() -> dict[str, tuple[dataclasses.Field[Any], dict[str, Any]]]:
    """Return the fields of all strategies' options by name, with each strategy's default."""
    found: dict[str, tuple[dataclasses.Field[Any], dict[str, Any]]] = {}
    for strategy in strategy_names():
        for field in dataclasses.fields(get_strategy(strategy).options_type):
            found.setdefault(field.name, (field, {}))[1][strategy] = field.default
    return found


def _add_exchange_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what exchanges go through")
    group.add_argument(
        "--encryption",
        choices=ENCRYPTION,
        default="auto",
        help="TLS between workers and driver, with a certificate made for the run (default auto: "
        "on unless the driver listens on the loopback). Synchronous workers then average through "
        "the driver; without it over gloo",
    )
    group.add_argument(
        "--servers",
        type=not_negative,
        default=0,
        metavar="N",
        help="processes beside the driver that hold the centre, a range each (default 0: the "
        "driver holds it)",
    )
    group.add_argument(
        "--exchange-dtype",
        choices=EXCHANGE_DTYPES,
        default="float32",
        help="what asynchronous workers and the centre send each other (default float32)",
    )
    group.add_argument(
        "--overlap",
        action="store_true",
        help="asynchronous workers go on while an exchange is under way",
    )


def _add_failure_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what survives")
    group.add_argument(
        "--checkpoints",
        metavar="URI",
        help="folder for checkpoints of a run with workers, on any file system that pyarrow opens "
        f"(default: beside the snapshots); {NO_CHECKPOINTS}: only for the time of the run",
    )
    group.add_argument(
        "--checkpoint-interval",
        type=seconds,
        metavar="S",
        help="seconds from one checkpoint to the next (default: every exchange of all workers; "
        "60 for nets of more than a million parameters, 1 where each iteration is an exchange)",
    )
    group.add_argument(
        "--keep-checkpoints",
        type=positive,
        default=2,
        metavar="N",
        help="how many of the newest are kept besides the best (default 2)",
    )
    group.add_argument(
        "--resume",
        metavar="URI",
        help="go on with the run whose checkpoints are there, from the newest, with the flags that "
        "it was started with; flags given now come after those",
    )
    group.add_argument(
        "--max-failures",
        type=positive,
        default=4,
        metavar="N",
        help="how often in a row a worker may be lost without getting further (default 4)",
    )
    group.add_argument(
        "--straggler-timeout",
        type=seconds,
        default=30.0,
        metavar="S",
        help="a worker that was not heard of for so many seconds is named (default 30)",
    )
    group.add_argument(
        "--drop-stragglers",
        action="store_true",
        help="and ended; another is started in its place, or the others do its share",
    )
    group.add_argument(
        "--start-timeout",
        type=seconds,
        default=120.0,
        metavar="S",
        help="longest wait for Spark to offer a place to every worker (default 120)",
    )
    group.add_argument(
        "--wait-timeout",
        type=seconds,
        default=1800.0,
        metavar="S",
        help="longest wait of one process for another after that (default 1800)",
    )
