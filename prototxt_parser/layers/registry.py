"""Caffe's type strings and the classes behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from prototxt_parser.errors import LayerError
from prototxt_parser.layers.base import Layer
from prototxt_parser.text import did_you_mean

LayerClass = TypeVar("LayerClass", bound=type[Layer])

_LAYERS: dict[str, type[Layer]] = {}


def register_layer(type_name: str) -> Callable[[LayerClass], LayerClass]:
    """Register the decorated class under Caffe's type string.

    Raises:
        ValueError: The type is taken.
    """

    def register(layer_class: LayerClass) -> LayerClass:
        if type_name in _LAYERS:
            raise ValueError(f"layer type {type_name!r} is registered: {_LAYERS[type_name]}")
        _LAYERS[type_name] = layer_class
        return layer_class

    return register


def layer_types() -> list[str]:
    """Return all registered type strings in byte order."""
    return sorted(_LAYERS)


def layer_class(type_name: str) -> type[Layer]:
    """Return the class of a type string.

    Raises:
        LayerError: Unknown type; the message names the nearest known one.
    """
    if type_name in _LAYERS:
        return _LAYERS[type_name]
    raise LayerError(f"Unknown layer type: {type_name}{did_you_mean(type_name, _LAYERS)}")
