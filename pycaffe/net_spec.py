"""Nets written in Python: `n.conv1 = L.Convolution(n.data, num_output=20, kernel_size=5)`.

`layers` (commonly `L`) makes layers, `params` (`P`) names their enum values, and `NetSpec` gives
names to their tops. The result is the same message that a prototxt file holds.
Source: caffe/python/caffe/net_spec.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

import numpy as np
from google.protobuf.message import Message

from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import did_you_mean


def param_name_dict() -> dict[str, str]:
    """Return the stem of the settings field of each type: `{"InnerProduct": "inner_product", …}`.

    Types without a message of their own (Deconvolution, SoftmaxWithLoss) are not in it.
    """
    return {
        field.message_type.name.removesuffix("Parameter"): field.name.removesuffix("_param")
        for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields
        if field.message_type is not None and field.name.endswith("_param")
    }


_STEMS = param_name_dict()


@final
class Top:
    """One output of a layer.

    Attributes:
        fn: The layer.
        n: Number of the output.
    """

    def __init__(self, fn: Function, n: int) -> None:
        self.fn, self.n = fn, n

    def to_proto(self) -> caffe_pb2.NetParameter:
        """Return the net that computes this top."""
        return to_proto(self)


@final
class Function:
    """A layer: its type, the tops it reads, and its settings.

    Args:
        type_name: Caffe's type string, or that of a registered type.
        inputs: Its bottoms.
        params: Settings by field name; `ntop` (default 1) is the number of tops, and with
            `in_place` they are the bottoms.

    Attributes:
        tops: What it computes.

    Raises:
        TypeError: An input is not a Top.
    """

    def __init__(self, type_name: str, inputs: Iterable[Top], params: Mapping[str, Any]) -> None:
        self.type_name, self.inputs, self.params = type_name, tuple(inputs), dict(params)
        for i, top in enumerate(self.inputs):
            if not isinstance(top, Top):
                raise TypeError(f"{type_name} input {i} is not a Top (type is {type(top)})")
        self.ntop = int(self.params.pop("ntop", 1))
        self.in_place = bool(self.params.pop("in_place", False))
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def message(self, names: _Names, bottoms: Iterable[str]) -> caffe_pb2.LayerParameter:
        """Return the layer as a message."""
        layer = caffe_pb2.LayerParameter(type=self.type_name, bottom=bottoms)
        tops = [] if self.in_place else [names.of(top) for top in self.tops]
        layer.top.extend(layer.bottom if self.in_place else tops)
        layer.name = names.of(self.tops[0] if self.tops else self)
        for name, value in self.params.items():
            assign_proto(self._message_with(name, layer), name, value)
        return layer

    def _message_with(self, name: str, layer: caffe_pb2.LayerParameter) -> Message:
        """Return the message that a setting belongs to: the type's own if it has the field."""
        stem = _STEMS.get(self.type_name)
        if stem is None or name.endswith("param"):
            return layer
        own: Message = getattr(layer, f"{stem}_param")
        return own if name in own.DESCRIPTOR.fields_by_name else layer


class _Names:
    """Names of tops, and of layers without one: given ones, else `<Type><count>`."""

    def __init__(self, given: Mapping[Top | Function, str]) -> None:
        self._names, self._counts = dict(given), Counter[str]()

    def of(self, named: Top | Function) -> str:
        """Return the name, inventing it the first time."""
        if named not in self._names:
            type_name = named.fn.type_name if isinstance(named, Top) else named.type_name
            self._counts[type_name] += 1
            self._names[named] = f"{type_name}{self._counts[type_name]}"
        return self._names[named]


def to_proto(*tops: Top | Function) -> caffe_pb2.NetParameter:
    """Return the net that computes `tops`, in order of dependency, everything named by its type."""
    return _net(tops, {})


def _net(
    ends: Iterable[Top | Function], given: Mapping[Top | Function, str]
) -> caffe_pb2.NetParameter:
    names, net = _Names(given), caffe_pb2.NetParameter()
    written: dict[Function, caffe_pb2.LayerParameter] = {}
    for fn in _in_order(end.fn if isinstance(end, Top) else end for end in ends):
        bottoms = [written[top.fn].top[top.n] for top in fn.inputs]
        written[fn] = fn.message(names, bottoms)
    net.layer.extend(written.values())
    return net


def _in_order(ends: Iterable[Function]) -> list[Function]:
    """Return all layers that `ends` need and `ends`, each after its inputs; of any depth."""
    order: dict[Function, None] = {}
    for end in ends:
        waiting = [end]
        while waiting:
            missing = [top.fn for top in waiting[-1].inputs if top.fn not in order]
            if missing:
                waiting.append(missing[0])
            else:
                order[waiting.pop()] = None
    return list(order)


def assign_proto(message: Message, name: str, value: Any) -> None:
    """Set a field from Python values.

    Args:
        message: Changed in place.
        name: The field.
        value: A dict for a message; a list, tuple or array for a repeated field, for which a
            single value or dict means one element; else a scalar.

    Raises:
        AttributeError: There is no such field.
        TypeError, ValueError: The field does not take the value.
    """
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        known = message.DESCRIPTOR.fields_by_name
        raise AttributeError(
            f'{message.DESCRIPTOR.name} has no field "{name}"{did_you_mean(name, known)}; settings '
            "of a type without a message of its own need theirs, e.g. convolution_param=dict(…)"
        )
    target = getattr(message, name)
    if hasattr(target, "extend"):
        for item in value if isinstance(value, list | tuple | np.ndarray) else [value]:
            if isinstance(item, dict):
                _assign_all(target.add(), item)
            else:
                target.append(item)
    elif isinstance(value, dict):
        _assign_all(target, value)
    else:
        setattr(message, name, value)


def _assign_all(message: Message, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        assign_proto(message, name, value)


@final
class NetSpec:
    """Tops under the names that they have in the net; the first top names its layer too.

    `n.conv1 = L.Convolution(…)` and `n["conv1"] = …` are the same; a layer without tops can be
    assigned too. Only what assigned tops need gets into the net.

    Differs from Caffe: what is neither is refused when it is assigned, not when it is used.
    """

    tops: dict[str, Top | Function]

    def __init__(self) -> None:
        object.__setattr__(self, "tops", {})

    def __setattr__(self, name: str, value: Top | Function) -> None:
        if not isinstance(value, Top | Function):
            raise TypeError(
                f"{name} must be a Top or a layer without tops; received {type(value)}. A layer "
                "with several tops is assigned to as many names: n.data, n.label = L.Data(ntop=2)"
            )
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        try:
            return vars(self)["tops"][name]
        except KeyError:
            raise AttributeError(f"nothing is assigned to {name}") from None

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    __setitem__ = __setattr__
    __delitem__ = __delattr__

    def __getitem__(self, name: str) -> Any:
        return self.tops[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tops

    def to_proto(self) -> caffe_pb2.NetParameter:
        """Return the net, its layers in order of assignment and dependency."""
        names = {top: name for name, top in self.tops.items()}
        return _net(self.tops.values(), names)


class _Layers:
    """`layers.<Type>(*bottoms, **settings)` makes a layer of any type."""

    def __getattr__(self, type_name: str) -> Callable[..., Any]:
        if type_name.startswith("__"):
            raise AttributeError(type_name)

        def layer(*bottoms: Top, **settings: Any) -> Any:
            """Return its top; a tuple of several, or the Function where there is none."""
            fn = Function(type_name, bottoms, settings)
            return fn.tops[0] if fn.ntop == 1 else fn.tops or fn

        return layer


class _Params:
    """`params.<Name>.<VALUE>` is the number of an enum value of `<Name>Parameter`."""

    def __getattr__(self, name: str) -> Any:
        message = getattr(caffe_pb2, f"{name}Parameter", None)
        if message is None:
            raise AttributeError(f"there are no settings {name}Parameter")
        return message


layers = _Layers()
params = _Params()
