"""What a solver file says about nets, checked before anything is built.

Source: caffe/src/caffe/solver.cpp, Solver::Init, InitTrainNet, InitTestNets.
"""

from __future__ import annotations

from dataclasses import dataclass

from prototxt_parser.definition import NetDefinition
from prototxt_parser.files import read_net
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.proto.caffe_pb2 import SolverParameter
from solvers.errors import SolverError

LEAST = {
    "average_loss": 1,
    "iter_size": 1,
    "max_iter": 0,
    "display": 0,
    "snapshot": 0,
    "test_interval": 0,
}
_TRAIN_FIELDS = ("train_net_param", "train_net", "net_param", "net")


@dataclass(frozen=True)
class NetChoice:
    """A net definition and the state to build it for.

    Attributes:
        definition: The unfiltered net.
        state: Phase, level and stages.
        iterations: Batches per test; 0 for the train net.
        source: Where the definition comes from, as Caffe's log says it: `net file: F`, `net_param`.
    """

    definition: NetDefinition
    state: caffe_pb2.NetState
    iterations: int = 0
    source: str = ""


def check_settings(param: SolverParameter) -> None:
    """Check numbers that every solver needs.

    Raises:
        SolverError: One is out of range; the message names field, range and value.
    """
    for name, least in LEAST.items():
        value = getattr(param, name)
        if value < least:
            raise SolverError(f"{name} must be >= {least}; received {value}")


def train_choice(param: SolverParameter, net: NetDefinition | None = None) -> NetChoice:
    """Return the train net: `net` if given, else the one that the settings name.

    Raises:
        SolverError: None or several of the fields that name a train net are set.
    """
    definition, source = (net, _source(net)) if net else _train_definition(param)
    state = _merged(caffe_pb2.TRAIN, definition, param.train_state)
    return NetChoice(definition, state, source=source)


def _train_definition(param: SolverParameter) -> tuple[NetDefinition, str]:
    given = [name for name in _TRAIN_FIELDS if param.HasField(name)]
    if not given:
        raise SolverError(
            "SolverParameter must specify a train net using one of these fields: "
            f"{', '.join(_TRAIN_FIELDS)}"
        )
    if len(given) > 1:
        raise SolverError(
            "SolverParameter must not contain more than one of these fields specifying a "
            f"train_net: {', '.join(_TRAIN_FIELDS)}; received {', '.join(given)}"
        )
    return _named(param, given[0])


def _named(param: SolverParameter, name: str) -> tuple[NetDefinition, str]:
    value = getattr(param, name)
    if isinstance(value, str):
        return read_net(value), f"{name} file: {value}"
    return NetDefinition(value), name


def _source(net: NetDefinition) -> str:
    return f"net file: {net.path}" if net.path else "net_param"


def test_choices(param: SolverParameter, net: NetDefinition | None = None) -> list[NetChoice]:
    """Return the test nets in Caffe's order; `net` replaces the generic one.

    Raises:
        SolverError: The numbers of test nets, `test_iter` and `test_state` do not fit.
    """
    definitions = [(NetDefinition(value), "test_net_param") for value in param.test_net_param]
    definitions += [(read_net(path), f"test_net file: {path}") for path in param.test_net]
    generic = (net, _source(net)) if net else _generic_definition(param)
    missing = len(param.test_iter) - len(definitions)
    if missing < 0 or (missing > 0 and generic is None):
        raise SolverError(
            "test_iter must be specified for each test network: "
            f"{len(param.test_iter)} test_iter, {len(definitions)} test nets"
        )
    definitions += [generic] * missing if generic else []
    if definitions and param.test_interval <= 0:
        raise SolverError(
            f"test_interval must be > 0 when there are test nets; received {param.test_interval}"
        )
    if len(param.test_state) not in (0, len(definitions)):
        raise SolverError(
            "test_state must be unspecified or specified once per test net: "
            f"{len(param.test_state)} test_state, {len(definitions)} test nets"
        )
    states = param.test_state or [caffe_pb2.NetState()] * len(definitions)
    return [
        NetChoice(definition, _merged(caffe_pb2.TEST, definition, state), iterations, source)
        for (definition, source), state, iterations in zip(
            definitions, states, param.test_iter, strict=True
        )
    ]


def _generic_definition(param: SolverParameter) -> tuple[NetDefinition, str] | None:
    given = [name for name in ("net_param", "net") if param.HasField(name)]
    return _named(param, given[0]) if given else None


def _merged(
    phase: caffe_pb2.Phase, definition: NetDefinition, override: caffe_pb2.NetState
) -> caffe_pb2.NetState:
    """Merge states as protobuf does: set values replace, stages add up."""
    state = caffe_pb2.NetState(phase=phase)
    state.MergeFrom(definition.param.state)
    state.MergeFrom(override)
    return state
