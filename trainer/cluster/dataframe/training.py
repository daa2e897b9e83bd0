"""Everything that a run over a DataFrame needs, checked before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from pyspark.sql import DataFrame

from prototxt_parser.definition import NetDefinition
from prototxt_parser.proto.caffe_pb2 import TEST, NetState, SolverParameter
from prototxt_parser.shapes import Shape
from prototxt_parser.text import did_you_mean
from solvers.settings import test_choices, train_choice
from trainer.cluster.dataframe.columns import Columns, check_names, select
from trainer.cluster.dataframe.inputs import Fed, Input, Labels, fed_blobs, make_input
from trainer.cluster.dataframe.params import PredictionParams, TrainingParams
from trainer.cluster.dataframe.rows import first_row, row_shape, rows_of
from trainer.errors import DataError, UsageError
from trainer.plan import DistributedPlan
from trainer.recipe import read_recipe
from trainer.strategies import get_strategy
from trainer.strategies.base import Options

# What a run over a DataFrame leaves to the model: it writes and tests nothing on its way.
_NOT_IN_FIT = (
    *("snapshot", "snapshot_prefix", "snapshot_after_train"),
    *("test_interval", "test_iter", "test_state", "test_net", "test_net_param"),
)


_RUN_SETTINGS = (
    *("encryption", "servers", "exchange_dtype", "overlap", "port", "task_attempts"),
    *("straggler_s", "replaces_stragglers", "start_timeout_s", "wait_timeout_s"),
)


def read_files(params: TrainingParams) -> tuple[SolverParameter, NetDefinition | None]:
    """Return the solver's settings, the overriding ones included, and the net if one is named.

    Raises:
        UsageError: Neither net nor solver is given, or a setting is unknown.
        PrototxtError: A file cannot be used.
    """
    recipe = read_recipe(params.optional(params.net), params.optional(params.solver), None)
    param = recipe.param
    settings = dict(params.optional(params.solverParams) or {})
    for name, override in (
        ("base_lr", params.baseLr),
        ("weight_decay", params.weightDecay),
        ("max_iter", params.maxIter),
    ):
        if params.isDefined(override):
            settings[name] = params.getOrDefault(override)
    for name in settings:
        if name not in param.DESCRIPTOR.fields_by_name:
            hint = did_you_mean(name, param.DESCRIPTOR.fields_by_name)
            raise UsageError(f'solverParams: a solver has no setting "{name}"{hint}')
        param.ClearField(name)
    try:
        ParseDict(settings, param)
    except ParseError as error:
        raise UsageError(f"solverParams: {error}") from error
    return param, recipe.net


def make_plan(params: TrainingParams, param: SolverParameter, threads: int) -> DistributedPlan:
    """Return what the workers will do. The seed is the Param's, else the solver's, else 0.

    Raises:
        UsageError: The strategy or one of its settings is unknown, or a number is out of range.
    """
    name = params.getOrDefault(params.strategy)
    options = _options(
        get_strategy(name).options_type, params.optional(params.strategyParams) or {}
    )
    return DistributedPlan(
        strategy=name,
        options=options,
        num_workers=params.getOrDefault(params.numWorkers),
        max_iter=param.max_iter,
        seed=params.getSeed() if params.isSet(params.seed) else max(param.random_seed, 0),
        device=params.getOrDefault(params.device),
        threads=threads,
        extensions=params.extensions(),
        **_run_settings(params.optional(params.runParams) or {}),
    )


def _run_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a plan that a user gives by name."""
    defaults = {each.name: each.default for each in fields(DistributedPlan)}
    for name, value in settings.items():
        if name not in _RUN_SETTINGS:
            hint = did_you_mean(name, _RUN_SETTINGS) or f"; it has {', '.join(_RUN_SETTINGS)}"
            raise UsageError(f'runParams: a run has no setting "{name}"{hint}')
        kind = type(defaults[name])
        if not isinstance(value, int if kind is float else kind) and type(value) is not kind:
            raise UsageError(
                f"runParams: {name}: expected a value like {defaults[name]!r}; received {value!r}"
            )
    return dict(settings)


def _options(kind: type[Options], settings: Mapping[str, Any]) -> Options:
    known = [each.name for each in fields(kind)]
    for name in settings:
        if name not in known:
            hint = did_you_mean(name, known) or f"; it has {', '.join(known) or 'none'}"
            raise UsageError(f'strategyParams: the strategy has no setting "{name}"{hint}')
    try:
        return kind(**settings)
    except TypeError as error:
        raise UsageError(f"strategyParams: {error}") from error


@dataclass(frozen=True)
class Side:
    """One phase of a net and the rows that go through it.

    Attributes:
        definition: The net, unfiltered.
        state: Phase, level and stages.
        inputs: How its blobs are made.
        columns: The column of each blob.
        batch_size: Rows of a batch.
    """

    definition: NetDefinition
    state: NetState
    inputs: tuple[Input, ...]
    columns: Mapping[str, str]
    batch_size: int

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of every blob that is fed."""
        return {each.blob: each.top_shape(self.batch_size) for each in self.inputs}

    def with_labels(self, rules: Mapping[str, Labels]) -> Side:
        """Return the same with rules for the labels."""
        inputs = tuple(replace(each, labels=rules.get(each.blob)) for each in self.inputs)
        return replace(self, inputs=inputs)


def read_sides(
    params: TrainingParams, param: SolverParameter, net: NetDefinition | None, rows: DataFrame
) -> tuple[Side, Side]:
    """Return what is trained and what tests it: the first test net, else the net's TEST phase.

    The first row is looked at, for shapes that nothing else states.

    Raises:
        UsageError: A column is missing or of a wrong type, or the net is fed by nothing.
        DataError: The first row does not fit, or there is none.
    """
    choice = train_choice(param, net)
    training = (choice.definition, choice.state)
    fed = fed_blobs(*training)
    if not fed:
        raise UsageError(f"{choice.source}: no layer of the net takes data, so no column can go in")
    columns = columns_of(params)
    check_names(columns, [each.blob for each in fed])
    check_shapes(params, [each.blob for each in fed])
    testing = test_definition(param, net)
    # A net whose TEST phase reads nothing is fed as in training.
    pairs = [(training, fed), (testing, fed_blobs(*testing) or fed)]
    used = {name for _, each in pairs for name in columns.of([f.blob for f in each]).values()}
    first = first_row(select(rows, {name: name for name in sorted(used)}))
    train, test = (_side(params, *place, each, first) for place, each in pairs)
    return train, test


def columns_of(params: PredictionParams) -> Columns:
    """Return what the Params say about columns."""
    return Columns(
        params.getFeaturesCol(),
        params.getLabelCol(),
        params.optional(params.weightCol) if isinstance(params, TrainingParams) else None,
        params.optional(params.inputCols),
    )


def _side(
    params: TrainingParams,
    definition: NetDefinition,
    state: NetState,
    fed: Sequence[Fed],
    first: Mapping[str, Any],
) -> Side:
    data_dir = params.optional(params.dataDir)
    folder = Path(data_dir) if data_dir else None
    given = given_shapes(params, fed[0].blob)
    columns = columns_of(params).of([each.blob for each in fed])
    inputs = []
    for each in fed:
        name = columns[each.blob]
        try:
            shape = row_shape(each, given.get(each.blob), first[name], folder)
            made = make_input(each, shape, folder)
            made.top_shape(1)
            rows_of(first[name], made)
        except DataError as error:
            raise DataError(f'column "{name}": {error}') from error
        inputs.append(made)
    return Side(definition, state, tuple(inputs), columns, _batch_size(params, fed))


def given_shapes(params: TrainingParams, features: str) -> dict[str, Shape]:
    """Return the shapes of rows that inputShape gives, by blob."""
    given = params.optional(params.inputShape) or {}
    by_blob = given if isinstance(given, dict) else {features: given}
    return {blob: tuple(shape) for blob, shape in by_blob.items()}


def check_shapes(params: TrainingParams, blobs: Sequence[str]) -> None:
    """Refuse an inputShape of a blob that the net is not fed, or one that is no shape."""
    for blob, shape in given_shapes(params, blobs[0]).items():
        if blob not in blobs:
            hint = did_you_mean(blob, blobs) or f": it is fed {', '.join(blobs)}"
            raise UsageError(f'inputShape: the net is not fed a blob "{blob}"{hint}')
        if any(size < 1 for size in shape):
            raise UsageError(f"inputShape: expected sizes of 1 or more; received {list(shape)}")


def _batch_size(params: TrainingParams, fed: Sequence[Fed]) -> int:
    """Return batchSize, else the one that the layers agree on."""
    if params.isDefined(params.batchSize):
        size: int = params.getOrDefault(params.batchSize)
        if size < 1:
            raise UsageError(f"batchSize: expected 1 or more; received {size}")
        return size
    stated = {each.blob: each.batch_size for each in fed if each.batch_size}
    if len(set(stated.values())) != 1:
        raise UsageError(
            "batchSize: not set, and the layers that the DataFrame stands in for do not state one "
            f"for all; they say {stated or 'nothing'}"
        )
    return next(iter(stated.values()))


def test_definition(
    param: SolverParameter, net: NetDefinition | None
) -> tuple[NetDefinition, NetState]:
    """Return the first test net and its state, else the train net in the TEST phase."""
    tests = test_choices(param, net) if param.test_iter else []
    if tests:
        return tests[0].definition, tests[0].state
    choice = train_choice(param, net)
    state = NetState()
    state.CopyFrom(choice.state)
    state.phase = TEST
    return choice.definition, state


def without_side_effects(param: SolverParameter) -> SolverParameter:
    """Return the settings without files and tests."""
    own = SolverParameter()
    own.CopyFrom(param)
    for name in _NOT_IN_FIT:
        own.ClearField(name)
    own.snapshot_after_train = False
    return own
