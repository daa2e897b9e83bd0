"""Which class each layer of a net has, or which of the types nobody knows."""

from __future__ import annotations

from google.protobuf import text_format

from prototxt_parser.definition import NetDefinition
from prototxt_parser.errors import LayerError, PrototxtError
from prototxt_parser.layers.base import Layer
from prototxt_parser.layers.registry import layer_class
from prototxt_parser.net import located
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import layer_positions

_REMEDY = (
    "docs/layers.md has the known types; for one of your own register a class and name its module "
    "(--layer-module), see docs/custom_layers.md"
)


def layer_classes(definition: NetDefinition) -> list[type[Layer]]:
    """Return the class of every layer of a net.

    Raises:
        PrototxtError: Unknown types; the message lists all of them, a line each, and the remedy.
    """
    classes: list[type[Layer]] = []
    unknown: list[str] = []
    for index, param in enumerate(definition.param.layer):
        try:
            classes.append(layer_class(param.type))
        except LayerError as error:
            unknown.append(str(located(param, definition.place(index), error)))
    if unknown:
        raise PrototxtError("\n".join([*unknown, _REMEDY]))
    return classes


def refuse_unknown_types(text: str, filename: str) -> None:
    """Name the unknown types of a net's text that cannot be read, perhaps for their own fields.

    Returns if there are none, or if the text is wrong in another way.

    Raises:
        PrototxtError: As `layer_classes`.
    """
    net = caffe_pb2.NetParameter()
    try:
        written = layer_positions(text)
        text_format.Parse(text, net, allow_unknown_field=True)
    except (PrototxtError, text_format.ParseError):
        return
    if not net.layers and all(layer.type for layer in net.layer):  # none of an old form
        places = tuple(f"{filename}:{line}:{column}" for line, column in written)
        layer_classes(NetDefinition(net, filename, places))
