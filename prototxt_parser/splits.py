"""Insertion of Split layers after blobs that several layers use.

Caffe's names are kept, because saved models and listings show them.
Source: caffe/src/caffe/util/insert_splits.cpp, InsertSplits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from prototxt_parser.definition import NetDefinition
from prototxt_parser.proto import caffe_pb2

_Top = tuple[int, int]  # (layer index, top index) of the last writer of a blob


@dataclass
class _Uses:
    """Who produces what, and how often it is used."""

    source: dict[tuple[int, int], _Top] = field(default_factory=dict)  # (layer, bottom) -> top
    consumers: Counter[_Top] = field(default_factory=Counter)
    loss_weight: dict[_Top, float] = field(default_factory=dict)


def insert_splits(definition: NetDefinition) -> NetDefinition:
    """Return the net with a Split after every top that is used more than once.

    An explicit non-zero `loss_weight` counts as a use. Unknown bottoms are left for the builder to
    report.
    """
    uses = _find_uses(definition.param)
    param = caffe_pb2.NetParameter()
    param.CopyFrom(definition.param)
    del param.layer[:]
    places: list[str] = []
    next_split: Counter[_Top] = Counter(
        {top: 1 for top, count in uses.consumers.items() if count > 1 and top in uses.loss_weight}
    )
    for index, original in enumerate(definition.param.layer):
        layer = param.layer.add()
        layer.CopyFrom(original)
        places.append(definition.place(index))
        _redirect_bottoms(layer, index, definition.param, uses, next_split)
        for top, blob in enumerate(original.top):
            if uses.consumers[index, top] > 1:
                _add_split(param, original.name, blob, (index, top), uses)
                places.append(definition.place(index))
                if (index, top) in uses.loss_weight:
                    del layer.loss_weight[:]
    return NetDefinition(param, definition.path, tuple(places))


def _find_uses(param: caffe_pb2.NetParameter) -> _Uses:
    uses, writer = _Uses(), dict[str, _Top]()
    for index, layer in enumerate(param.layer):
        for bottom, blob in enumerate(layer.bottom):
            if blob in writer:
                uses.source[index, bottom] = writer[blob]
                uses.consumers[writer[blob]] += 1
        for top, blob in enumerate(layer.top):
            writer[blob] = (index, top)
        for top, weight in enumerate(layer.loss_weight[: len(layer.top)]):
            if weight:
                uses.consumers[index, top] += 1
                uses.loss_weight[index, top] = weight
    return uses


def _redirect_bottoms(
    layer: caffe_pb2.LayerParameter,
    index: int,
    param: caffe_pb2.NetParameter,
    uses: _Uses,
    next_split: Counter[_Top],
) -> None:
    for bottom, blob in enumerate(layer.bottom):
        top = uses.source.get((index, bottom))
        if top is not None and uses.consumers[top] > 1:
            stem = split_name(param.layer[top[0]].name, blob, top[1])
            layer.bottom[bottom] = f"{stem}_{next_split[top]}"
            next_split[top] += 1


def _add_split(
    param: caffe_pb2.NetParameter, producer: str, blob: str, top: _Top, uses: _Uses
) -> None:
    name = split_name(producer, blob, top[1])
    count = uses.consumers[top]
    split = param.layer.add(name=name, type="Split", bottom=[blob])
    split.top.extend(f"{name}_{k}" for k in range(count))
    if top in uses.loss_weight:
        split.loss_weight.extend([uses.loss_weight[top], *[0.0] * (count - 1)])


def split_name(producer: str, blob: str, top_index: int) -> str:
    """Return Caffe's name of the Split after top `top_index` of layer `producer`."""
    return f"{blob}_{producer}_{top_index}_split"
