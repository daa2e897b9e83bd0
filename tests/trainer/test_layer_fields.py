"""Every field of a layer's messages is looked at while its cases run, or stated to be ignored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf.message import Message

from golden_cases import GOLDEN, case_names
from prototxt_parser import LayerContext, Shape, build, build_net, layers, read_net, user_code
from prototxt_parser.build import data_specs
from prototxt_parser.definition import NetDefinition
from prototxt_parser.known_layers import layer_classes
from prototxt_parser.layers.base import Layer
from prototxt_parser.layers.registry import layer_class, layer_types
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.state import net_state
from prototxt_parser.text import parse_text
from trainer.data.feed import open_feed

OWN = [name for name in layer_types() if layer_class(name).__module__.startswith(layers.__name__)]
FED = ("data", "image_data", "hdf5_data", "window_data")
PYTHON_LAYER = """
import caffe
class Twice(caffe.Layer):
    def setup(self, bottom, top): assert self.param_str == "x"
    def reshape(self, bottom, top): top[0].reshape(2)
    def forward(self, bottom, top): top[0].data[...] = 2
    def backward(self, top, propagate_down, bottom): pass
"""

# Looked at, but only to refuse a contradiction.
CHECKED_ONLY = {"ImageData": {"transform_param.force_color"}}

Read = dict[str, set[str]]


class Spy:
    """A message that notes which of its fields are looked at, down to those of its messages."""

    def __init__(self, message: Message, read: set[str], path: str = "") -> None:
        self._message, self._read, self._path = message, read, path

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._message, name)
        if name not in self._message.DESCRIPTOR.fields_by_name:
            return value
        self._read.add(self._path + name)
        if isinstance(value, Message) and not self._path:
            return Spy(value, self._read, f"{name}.")
        return value

    def HasField(self, name: str) -> bool:
        self._read.add(self._path + name)
        return self._message.HasField(name)


def spied(layer: type[Layer], read: set[str]) -> type[Layer]:
    """Return a layer's class whose objects look at spies."""

    def init(
        self: Layer,
        param: caffe_pb2.LayerParameter,
        bottoms: Sequence[Shape],
        context: LayerContext,
    ) -> None:
        layer.__init__(self, Spy(param, read), bottoms, context)  # type: ignore[arg-type]

    return type(layer.__name__, (layer,), {"__init__": init})


def run_net(folder: Path) -> None:
    """Build the net of a case, and run it if all of its inputs are recorded."""
    arrays = np.load(folder / "case.npz")
    net = build_net(read_net(folder / "net.prototxt"), "TRAIN", seed=7)
    tops = [top for step in net.steps if step.is_source for top in step.tops]
    keys = {top: key for top in tops for key in arrays if key.endswith(f"bottom/{top}")}
    if len(keys) == len(tops):
        net({top: torch.from_numpy(arrays[key]) for top, key in keys.items()})


def run_source(folder: Path, read: Read) -> None:
    """Read a batch of a case's data layer."""
    for spec in data_specs(read_net(folder / "net.prototxt"), net_state("TRAIN")):
        watched = Spy(spec.param, read[spec.param.type])
        feed = open_feed([replace(spec, param=watched)], seed=1)
        feed.next()
        feed.close()


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """The fields that each type looks at in any of the recorded cases."""
    found: Read = defaultdict(set)

    def classes(definition: NetDefinition) -> list[type[Layer]]:
        pairs = zip(layer_classes(definition), definition.param.layer, strict=True)
        return [spied(layer, found[param.type]) for layer, param in pairs]

    scratch = tmp_path_factory.mktemp("modules")
    (scratch / "twice_layer.py").write_text(PYTHON_LAYER)
    with pytest.MonkeyPatch.context() as patch:
        for kind in FED:
            for name in case_names(f"formats/{kind}"):
                patch.chdir(GOLDEN / name)
                run_source(GOLDEN / name, found)
        patch.setattr(build, "layer_classes", classes)
        for name in case_names("layers"):
            if "/HDF5Data/" in name:
                continue
            patch.chdir(scratch if "/HDF5Output/" in name else GOLDEN / name)
            run_net(GOLDEN / name)
        patch.syspath_prepend(scratch)
        patch.setattr(user_code, "_allowed", {"twice_layer"})
        user_code.name_our_package_caffe()
        text = 'layer { name: "p" type: "Python" top: "t" python_param { SETTINGS } }'
        settings = 'module: "twice_layer" layer: "Twice" param_str: "x"'
        net = parse_text(text.replace("SETTINGS", settings), caffe_pb2.NetParameter(), "net")
        build_net(net, "TRAIN")({})
    return found


@pytest.mark.parametrize("name", OWN)
def test_every_field_is_looked_at_or_stated_to_be_ignored(name: str, read: Read) -> None:
    layer = layer_class(name)
    messages = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
    fields = {
        f"{message}.{field.name}"
        for message in layer.param_fields
        for field in messages[message].message_type.fields
    }
    assert fields - read[name] | CHECKED_ONLY.get(name, set()) == set(layer.ignored_fields)
    assert all(layer.ignored_fields.values())


def test_every_message_of_the_schema_belongs_to_a_layer() -> None:
    messages = {
        field.name
        for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields
        if field.name.endswith("_param")
    }
    assert messages == {message for name in OWN for message in layer_class(name).param_fields}


@pytest.mark.parametrize("name", OWN)
def test_a_layer_looks_at_no_message_that_it_does_not_name(name: str, read: Read) -> None:
    looked_at = {field for field in read[name] if field.endswith("_param")}
    allowed = {"transform_param"} if name == "HDF5Data" else set()  # which it refuses
    if layer_class(name).is_fed and name != "Input":
        allowed.add("data_param")  # whose `prefetch` counts for all of them
    assert looked_at <= {*layer_class(name).param_fields, *allowed}
