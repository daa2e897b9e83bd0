"""Which layers a phase, a level and stages select."""

from __future__ import annotations

from collections.abc import Iterable

from prototxt_parser.definition import NetDefinition
from prototxt_parser.errors import PrototxtError
from prototxt_parser.proto import caffe_pb2


def net_state(phase: str | int, level: int = 0, stages: Iterable[str] = ()) -> caffe_pb2.NetState:
    """Return a state; `phase` is "TRAIN", "TEST" or its number.

    Raises:
        PrototxtError: Another phase.
    """
    try:
        value = caffe_pb2.Phase.Value(phase) if isinstance(phase, str) else phase
    except ValueError:
        raise PrototxtError(f'phase must be "TRAIN" or "TEST"; received "{phase}"') from None
    return caffe_pb2.NetState(phase=value, level=level, stage=stages)  # type: ignore[arg-type]


def file_state(
    definition: NetDefinition, phase: str | int, level: int = 0, stages: Iterable[str] = ()
) -> caffe_pb2.NetState:
    """Return the state for a net from a file: phase and level replace the file's, stages add up.

    Raises:
        PrototxtError: Another phase than "TRAIN", "TEST" or its number.

    Source: caffe/src/caffe/net.cpp, Net::Net with a file name.
    """
    return net_state(phase, level, [*definition.param.state.stage, *stages])


def filter_net(definition: NetDefinition, state: caffe_pb2.NetState) -> NetDefinition:
    """Return the net with only the layers that `state` selects, and `state` set.

    Raises:
        PrototxtError: A layer has include and exclude rules.

    Source: caffe/src/caffe/net.cpp, Net::FilterNet.
    """
    layers = definition.param.layer
    kept = [i for i in range(len(layers)) if _is_kept(definition, i, state)]
    param = caffe_pb2.NetParameter()
    param.CopyFrom(definition.param)
    del param.layer[:]
    param.layer.extend(layers[i] for i in kept)
    param.state.CopyFrom(state)
    return NetDefinition(param, definition.path, tuple(definition.place(i) for i in kept))


def _is_kept(definition: NetDefinition, index: int, state: caffe_pb2.NetState) -> bool:
    layer = definition.param.layer[index]
    if layer.include and layer.exclude:
        raise PrototxtError(
            f'{definition.place(index)}: layer "{layer.name}" ({layer.type}): '
            "Specify either include rules or exclude rules; not both."
        )
    if layer.include:
        return any(meets_rule(state, rule) for rule in layer.include)
    return not any(meets_rule(state, rule) for rule in layer.exclude)


def meets_rule(state: caffe_pb2.NetState, rule: caffe_pb2.NetStateRule) -> bool:
    """Return whether every condition that `rule` sets holds; an empty rule always does.

    Source: caffe/src/caffe/net.cpp, Net::StateMeetsRule.
    """
    stages = set(state.stage)
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )
