"""Errors of the package: one root, so that a caller needs one `except`."""

from __future__ import annotations


class PrototxtError(Exception):
    """A definition or a weights file cannot be used; the message says where, why and what to do."""


class LayerError(PrototxtError):
    """A layer refuses its settings or its inputs.

    Raised inside layers with a bare sentence; whoever runs the layer puts its place, its name and
    its type in front (see `prototxt_parser.build`).
    """


class WriteError(PrototxtError):
    """A file cannot be written; what was there before is untouched. Check space and permissions."""
