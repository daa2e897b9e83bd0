"""Where batches come from, as a solver sees it. `trainer.data` has the real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from prototxt_parser.build import build_for_state, data_specs
from prototxt_parser.data_spec import DataSpec
from prototxt_parser.definition import NetDefinition
from prototxt_parser.errors import PrototxtError
from prototxt_parser.net import Net
from prototxt_parser.proto.caffe_pb2 import NetState
from prototxt_parser.random_source import RandomSource


class Feed(Protocol):
    """Batches for all data layers of one net, in database order, without end."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every top that the feed fills, batch axis included."""

    def next(self) -> Mapping[str, Tensor]:
        """Return the next batch: float32 CPU tensors by blob name; the caller may keep them."""

    def skip(self, batches: int) -> None:
        """Pass over batches without making them."""

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch that `next` returned, as JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position that `state_dict` returned: the batches after it come again."""

    def close(self) -> None:
        """Stop reading ahead and close files. Idempotent."""


class FeedOpener(Protocol):
    """Opens the feed of a net from its data layers."""

    def __call__(self, specs: Sequence[DataSpec]) -> Feed:
        """Open the sources of all `specs` and return one feed over them."""


class NoFeed:
    """The feed of a net without data layers: nothing; its Input layers are the caller's to fill."""

    shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    def next(self) -> dict[str, Tensor]:
        """Return no blobs."""
        return {}

    def skip(self, batches: int) -> None:
        """Pass over nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return an empty position."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take any position."""

    def close(self) -> None:
        """Do nothing."""


def open_net(
    definition: NetDefinition,
    state: NetState,
    open_feed: FeedOpener,
    random: RandomSource | None = None,
) -> tuple[Net, Feed]:
    """Open the data layers that `state` selects, and build the net on the shapes that they give.

    Raises:
        PrototxtError: The net cannot be built; its data is closed again.
    """
    specs = data_specs(definition, state)
    feed: Feed = open_feed(specs) if specs else NoFeed()
    try:
        return build_for_state(definition, state, input_shapes=feed.shapes, random=random), feed
    except PrototxtError:
        feed.close()
        raise


def zero_inputs(net: Net) -> dict[str, Tensor]:
    """Return zeros for every Input layer: what Caffe's tools, which fill none, run them on."""
    return {name: torch.zeros(net.blob_shapes[name]) for name in net.inputs}
