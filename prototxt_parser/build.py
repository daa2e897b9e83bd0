"""Making a `Net` from a definition: filter, split, wire, share.

Source: caffe/src/caffe/net.cpp, Net::Init, AppendTop, AppendBottom, AppendParam.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from prototxt_parser.build_log import LayerLog, log_definition, log_result
from prototxt_parser.data_spec import DataSpec
from prototxt_parser.definition import NetDefinition
from prototxt_parser.errors import LayerError
from prototxt_parser.flat_parameters import Slot
from prototxt_parser.known_layers import layer_classes
from prototxt_parser.layers.base import Layer, LayerContext
from prototxt_parser.net import AUTOMATIC_TOP, Net, Step, located
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.random_source import RandomSource
from prototxt_parser.shapes import Shape, check_shape, count, shape_text
from prototxt_parser.splits import insert_splits
from prototxt_parser.state import file_state, filter_net


def build_net(
    definition: NetDefinition | caffe_pb2.NetParameter,
    phase: str | int,
    *,
    level: int = 0,
    stages: Iterable[str] = (),
    input_shapes: Mapping[str, Shape] | None = None,
    seed: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Net:
    """Build the net that `definition` describes for a phase.

    Args:
        definition: From `read_net`, or a message made in memory.
        phase: "TRAIN" or "TEST".
        level: Level of the state, for `min_level` and `max_level` rules.
        stages: Stages of the state, added to those in the definition.
        input_shapes: Shapes of blobs that data layers fill (they follow from the data), and of
            Input layers without a shape; by blob name.
        seed: Seed of fillers and Dropout; None draws one.
        dtype: Type of blobs and parameters.

    Returns:
        The net, its parameters filled.

    Raises:
        PrototxtError: The definition cannot be built; the message gives `file:line:column`, the
            layer, what was expected and what was received.
    """
    definition = _as_definition(definition)
    state = file_state(definition, phase, level, stages)
    return build_for_state(
        definition, state, input_shapes=input_shapes, random=RandomSource(seed), dtype=dtype
    )


def data_specs(
    definition: NetDefinition | caffe_pb2.NetParameter, state: caffe_pb2.NetState
) -> list[DataSpec]:
    """Return what the data layers that `state` selects ask for, without building the net.

    Raises:
        PrototxtError: Unknown layer types.
    """
    return [spec for spec in fed_specs(definition, state) if spec.param.type != "Input"]


def fed_specs(
    definition: NetDefinition | caffe_pb2.NetParameter, state: caffe_pb2.NetState
) -> list[DataSpec]:
    """Return every layer that `state` selects and that gets its tops from outside, Input included.

    Raises:
        PrototxtError: Unknown layer types.
    """
    filtered = filter_net(_as_definition(definition), state)
    return [
        DataSpec(layer, _phase(layer, state), filtered.place(i))
        for i, (layer, kind) in enumerate(
            zip(filtered.param.layer, layer_classes(filtered), strict=True)
        )
        if kind.is_fed
    ]


def build_for_state(
    definition: NetDefinition | caffe_pb2.NetParameter,
    state: caffe_pb2.NetState,
    *,
    input_shapes: Mapping[str, Shape] | None = None,
    random: RandomSource | None = None,
    dtype: torch.dtype = torch.float32,
    net_type: type[Net] = Net,
) -> Net:
    """Build the net, a `net_type`, for a complete state (phase, level and all stages).

    See `build_net` for the other arguments.
    """
    whole = _as_definition(definition)
    filtered = filter_net(whole, state)
    log_definition(filtered)
    split = insert_splits(filtered)
    context = LayerContext(state.phase, random or RandomSource(), dtype, dict(input_shapes or {}))
    builder = _Builder(split, context, _tops(whole) - _tops(filtered))
    for index, layer_type in enumerate(layer_classes(split)):
        builder.add(index, layer_type)
    return builder.finish(net_type)


@dataclass
class _Builder:
    definition: NetDefinition
    context: LayerContext
    left_out: set[str]  # tops of the layers that the state does not select
    steps: list[Step] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    unconsumed: set[str] = field(default_factory=set)
    log: LayerLog = field(default_factory=LayerLog)

    def add(self, index: int, layer_type: type[Layer]) -> None:
        """Append layer `index` of the definition."""
        param, place = self.definition.param.layer[index], self.definition.place(index)
        try:
            self._check_counts(layer_type, param)
            bottoms = self._take_bottoms(param)
            layer = layer_type(
                param, bottoms, replace(self.context, phase=_phase(param, self.context))
            )
            _set_gradients(layer, param, force=self.definition.param.force_backward)
            weights = _loss_weights(layer, param)
            tops = self._add_tops(layer, param, bottoms)
        except LayerError as error:
            raise located(param, place, error) from error
        self.steps.append(Step(layer, param, tuple(param.bottom), tops, weights, place))
        self.log.add(self.steps[-1], self.shapes)

    def finish(self, net_type: type[Net]) -> Net:
        """Return the net."""
        param = self.definition.param
        net = net_type(
            param.name,
            self.context.phase,
            self.steps,
            _shared_slots(self.steps),
            self.shapes,
            sorted(self.unconsumed, key=str.encode),
            self.context.random,
            dtype=self.context.dtype,
            force_backward=param.force_backward,
        )
        net.debug_info = param.debug_info
        log_result(net)
        return net

    def _check_counts(self, layer_type: type[Layer], param: caffe_pb2.LayerParameter) -> None:
        layer_type.bottom_count.check(param.type, "bottom", len(param.bottom))
        if param.top or not layer_type.is_loss:
            layer_type.top_count.check(param.type, "top", len(param.top))
        if layer_type.tops_match_bottoms and len(param.top) != len(param.bottom):
            raise LayerError(
                f"{param.type} Layer produces one top blob as output for each bottom blob input; "
                f"received {len(param.bottom)} bottoms, {len(param.top)} tops"
            )
        if len(param.propagate_down) not in (0, len(param.bottom)):
            raise LayerError(
                "propagate_down param must be specified either 0 or bottom_size times; "
                f"{len(param.bottom)} bottoms, {len(param.propagate_down)} propagate_down"
            )

    def _take_bottoms(self, param: caffe_pb2.LayerParameter) -> list[Shape]:
        for index, name in enumerate(param.bottom):
            if name not in self.unconsumed:
                known = ", ".join(sorted(self.unconsumed)) or "none"
                hint = "; a layer of another phase, level or stage makes it"
                hint = hint if name in self.left_out else ""
                raise LayerError(
                    f"Unknown bottom blob '{name}' (layer '{param.name}', bottom index {index}); "
                    f"blobs available here: {known}{hint}"
                )
            self.unconsumed.discard(name)
        return [self.shapes[name] for name in param.bottom]

    def _add_tops(
        self, layer: Layer, param: caffe_pb2.LayerParameter, bottoms: list[Shape]
    ) -> tuple[str, ...]:
        shapes = layer.top_shapes(bottoms)
        for index, (name, shape) in enumerate(zip(param.top, shapes, strict=False)):
            in_place = index < len(param.bottom) and param.bottom[index] == name
            if in_place and not layer.allows_in_place:
                raise LayerError(f"{param.type} Layer does not allow in-place computation.")
            if name in self.shapes and not in_place:
                raise LayerError(f"Top blob '{name}' produced by multiple sources.")
            check_shape(shape)
            self.shapes[name] = shape
            self.unconsumed.add(name)
        return tuple(param.top) or ((AUTOMATIC_TOP,) if layer.is_loss else ())


def _as_definition(net: NetDefinition | caffe_pb2.NetParameter) -> NetDefinition:
    return NetDefinition(net) if isinstance(net, caffe_pb2.NetParameter) else net


def _tops(net: NetDefinition) -> set[str]:
    return {top for layer in net.param.layer for top in layer.top}


def _phase(param: caffe_pb2.LayerParameter, state: caffe_pb2.NetState | LayerContext) -> int:
    return param.phase if param.HasField("phase") else state.phase


def _loss_weights(layer: Layer, param: caffe_pb2.LayerParameter) -> tuple[float, ...]:
    if not param.loss_weight:
        return (float(layer.is_loss), *[0.0] * (layer.num_tops - 1))[: layer.num_tops]
    if len(param.loss_weight) != layer.num_tops:
        raise LayerError(
            "loss_weight must be unspecified or specified once per top blob: "
            f"{layer.num_tops} tops, {len(param.loss_weight)} loss_weight"
        )
    return tuple(param.loss_weight)


def param_spec(layer: Layer, index: int) -> caffe_pb2.ParamSpec:
    """Return the settings of blob `index`: as written, or the default; 0 for statistics."""
    written = layer.param.param
    spec = written[index] if index < len(written) else caffe_pb2.ParamSpec()
    if layer.blob_names[index] in layer.statistics and not spec.HasField("lr_mult"):
        fixed = caffe_pb2.ParamSpec(lr_mult=0)
        fixed.MergeFrom(spec)
        return fixed
    return spec


def _set_gradients(layer: Layer, param: caffe_pb2.LayerParameter, *, force: bool) -> None:
    if len(param.param) > len(layer.blobs):
        raise LayerError(
            f"Too many params specified for layer {param.name}: "
            f"it has {len(layer.blobs)}, {len(param.param)} are specified"
        )
    for index, (name, blob) in enumerate(zip(layer.blob_names, layer.blobs, strict=True)):
        learned = force or param_spec(layer, index).lr_mult != 0
        blob.requires_grad_(learned and name not in layer.statistics)


@dataclass
class _Group:
    """A learnable blob: the first user of its name, and those that share it."""

    step: Step
    index: int
    parameters: list[nn.Parameter]
    multipliers: dict[str, float] = field(default_factory=dict)


def _shared_slots(steps: list[Step]) -> list[Slot]:
    groups: list[_Group] = []
    named: dict[str, _Group] = {}
    for step in steps:
        for index, parameter in enumerate(step.layer.blobs):
            spec = param_spec(step.layer, index)
            group = named.get(spec.name) if spec.name else None
            if group is None:
                group = _Group(step, index, [])
                groups.append(group)
                if spec.name:
                    named[spec.name] = group
            else:
                _check_shareable(group, step, parameter, spec)
            group.parameters.append(parameter)
            _merge_multipliers(group, step, spec)
    return [_slot(group) for group in groups]


def _check_shareable(
    group: _Group, step: Step, parameter: nn.Parameter, spec: caffe_pb2.ParamSpec
) -> None:
    owner = group.parameters[0]
    permissive = spec.share_mode == caffe_pb2.ParamSpec.PERMISSIVE
    if permissive and count(owner.shape) == count(parameter.shape):
        return
    if not permissive and owner.shape == parameter.shape:
        return
    raise step.located(
        LayerError(
            f"Cannot share param '{spec.name}' owned by layer '{group.step.param.name}' with layer "
            f"'{step.param.name}'; {'count' if permissive else 'shape'} mismatch. "
            f"Owner layer param shape is {shape_text(owner.shape)}; "
            f"sharing layer expects shape {shape_text(parameter.shape)}"
        )
    )


def _merge_multipliers(group: _Group, step: Step, spec: caffe_pb2.ParamSpec) -> None:
    for name, value in (("lr_mult", spec.lr_mult), ("decay_mult", spec.decay_mult)):
        if spec.HasField(name) and group.multipliers.setdefault(name, value) != value:
            raise step.located(
                LayerError(
                    f"Shared param '{spec.name}' has mismatched {name}: "
                    f"{group.multipliers[name]} and {value}"
                )
            )


def _slot(group: _Group) -> Slot:
    layer = group.step.layer
    return Slot(
        group.step.param.name,
        group.index,
        tuple(group.parameters),
        group.multipliers.get("lr_mult", 1.0),
        group.multipliers.get("decay_mult", 1.0),
        layer.blob_names[group.index] in layer.statistics,
    )
