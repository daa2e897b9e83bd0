"""What Caffe says while it upgrades a file, and what became of the upgrade."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One step of an upgrade, in Caffe's words.

    Attributes:
        old: The old form.
        done: What is said at its end.
        note: What is said besides.
        conversion: What may have problems.
    """

    old: str
    done: str
    note: str = ""
    conversion: str = ""


V0 = Step(
    "input file specified using deprecated V0LayerParameter",
    "file specified using deprecated V0LayerParameter",
    "Note that future Caffe releases will not support V0NetParameter; use "
    "./build/tools/upgrade_net_proto_text for prototxt and ./build/tools/upgrade_net_proto_binary "
    "for model weights upgrade this and any other net protos to the new format.",
    "V0NetParameter to NetParameter",
)
TRANSFORMATIONS = Step(
    "input file specified using deprecated transformation parameters",
    "file specified using deprecated data transformation parameters.",
    "Note that future Caffe releases will only support transform_param messages for "
    "transformation fields.",
)
V1 = Step(
    "input file specified using deprecated V1LayerParameter",
    "file specified using deprecated V1LayerParameter",
)
INPUTS = Step(
    "input file specified using deprecated input fields",
    "file specified using deprecated input fields.",
    "Note that future Caffe releases will only support input layers and not input fields.",
)
BATCH_NORMS = Step(
    "batch norm layers using deprecated params", "batch norm layers using deprecated params."
)
SOLVER_TYPE = Step(
    "input file specified using deprecated 'solver_type' field (enum)'",
    "file specified using deprecated 'solver_type' field (enum) to 'type' field (string).",
    "Note that future Caffe releases will only support 'type' field (string) for a solver's type.",
)


@dataclass
class UpgradeLog:
    """Which steps were taken, and what could not be carried over.

    Attributes:
        source: What messages call the file.
        steps: The steps taken.
        problems: What has no current form, a sentence each.
    """

    source: str
    steps: list[Step] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """Announce a step and its end."""
        self.steps.append(step)
        before = len(self.problems)
        logger.info("Attempting to upgrade %s: %s", step.old, self.source)
        yield
        if len(self.problems) > before:
            logger.error(
                "Warning: had one or more problems upgrading %s (see above); continuing anyway.",
                step.conversion,
            )
        else:
            logger.info("Successfully upgraded %s", step.done)
        if step.note:
            logger.info("%s", step.note)

    def problem(self, text: str) -> None:
        """Note what is left out."""
        self.problems.append(text)
        logger.error("%s: %s", self.source, text)

    def lose_unknown(self, message: Message, layer: str, known: Iterable[int] = ()) -> None:
        """Warn of fields of an old layer that Caffe's schema lacks: their numbers mean nothing now.

        Args:
            message: The old layer.
            layer: Its name.
            known: Numbers of fields that may be dropped without a word.
        """
        fields = UnknownFieldSet(message)
        numbers = {fields[index].field_number for index in range(len(fields))} - set(known)
        if numbers:
            logger.warning(
                '%s: layer "%s": unknown fields of the old form have no current form and are left '
                "out: number %s",
                *(self.source, layer, ", ".join(map(str, sorted(numbers)))),
            )
