"""The lines that Caffe logs while it builds a net.

Source: caffe/src/caffe/net.cpp, Net::Init, AppendTop, AppendBottom, AppendParam.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prototxt_parser.backward_flags import backward_flags
from prototxt_parser.definition import NetDefinition
from prototxt_parser.shapes import Shape, count, shape_text
from prototxt_parser.text import print_text

if TYPE_CHECKING:
    from prototxt_parser.net import Net, Step

logger = logging.getLogger(__name__)


def log_definition(definition: NetDefinition) -> None:
    """Log the layers that the net's state selects."""
    if logger.isEnabledFor(logging.INFO):
        logger.info("Initializing net from parameters: \n%s", print_text(definition.param))


class LayerLog:
    """Logs layer after layer; keeps count of memory and of shared parameters."""

    def __init__(self) -> None:
        self._bytes = 0
        self._owners: dict[str, tuple[str, int]] = {}

    def add(self, step: Step, shapes: Mapping[str, Shape]) -> None:
        """Log a layer in its place; `shapes` are those of the blobs so far."""
        if not logger.isEnabledFor(logging.INFO):
            return
        name = step.param.name
        logger.info("Creating layer %s", name)
        logger.info("Creating Layer %s", name)
        for bottom in step.bottoms:
            logger.info("%s <- %s", name, bottom)
        for index, top in enumerate(step.tops):
            in_place = step.bottoms[index : index + 1] == (top,)
            logger.info("%s -> %s%s", name, top, " (in-place)" if in_place else "")
        logger.info("Setting up %s", name)
        for top, weight in zip(step.tops, step.loss_weights, strict=True):
            shape = shapes.get(top, ())  # only a loss without a written top is missing: a scalar
            logger.info("Top shape: %s", shape_text(shape))
            if weight:
                logger.info("    with loss weight %g", weight)
            self._bytes += 4 * count(shape)
        logger.info("Memory required for data: %d", self._bytes)
        self._log_sharing(step)

    def _log_sharing(self, step: Step) -> None:
        for index, spec in enumerate(step.param.param):
            if not spec.name:
                continue
            if spec.name in self._owners:
                owner, number = self._owners[spec.name]
                logger.info(
                    "Sharing parameters '%s' owned by layer '%s', param index %d",
                    spec.name,
                    owner,
                    number,
                )
            else:
                self._owners[spec.name] = (step.param.name, index)


def log_result(net: Net) -> None:
    """Log which layers run backward, last first, and the net's outputs."""
    if not logger.isEnabledFor(logging.INFO):
        return
    flags = backward_flags(net.steps, force=False)  # Caffe logs this before it forces any
    for step, flag in reversed(list(zip(net.steps, flags, strict=True))):
        verb = "needs" if flag.runs else "does not need"
        logger.info("%s %s backward computation.", step.param.name, verb)
    for name in net.outputs:
        logger.info("This network produces output %s", name)
    logger.info("Network initialization done.")
