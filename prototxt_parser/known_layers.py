"""Which class each layer of a net has, or which of the types nobody knows."""

from __future__ import annotations

from prototxt_parser.definition import NetDefinition
from prototxt_parser.errors import LayerError, PrototxtError
from prototxt_parser.layers.base import Layer
from prototxt_parser.layers.registry import layer_class
from prototxt_parser.net import located

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
