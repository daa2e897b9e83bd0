"""What each layer of a net holds and computes, from the shapes at construction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prototxt_parser.net import Net, Step
from prototxt_parser.shapes import Shape, count
from trainer.layer_costs import Cost, layer_cost

_VALUE_BYTES = 4
# Their tops are other views of their bottoms' memory.
_VIEWS = ("Flatten", "Reshape", "Split")


@dataclass(frozen=True)
class LayerSummary:
    """One layer.

    Attributes:
        name: Of the layer.
        type: Caffe's type string.
        tops: Its outputs and their shapes.
        parameters: Values in its blobs; those shared with an earlier layer are counted there.
        statistics: How many of them are running statistics, not weights.
        cost: Of a forward pass of the whole batch; None where it is not known.
        activations: Values of its tops; none for those that share memory with a bottom.
    """

    name: str
    type: str
    tops: tuple[tuple[str, Shape], ...]
    parameters: int
    statistics: int
    cost: Cost | None
    activations: int

    @property
    def activation_bytes(self) -> int:
        """Memory of the tops, in float32, without gradients."""
        return _VALUE_BYTES * self.activations


@dataclass(frozen=True)
class NetSummary:
    """A net.

    Attributes:
        name: Of the net.
        phase: TRAIN (0) or TEST (1).
        batch: First axis of the first blob that comes from no other, 1 if there is none.
        layers: In order.
    """

    name: str
    phase: int
    batch: int
    layers: Sequence[LayerSummary]

    @property
    def parameters(self) -> int:
        """Values that a caffemodel holds, each once."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def statistics(self) -> int:
        """How many of them are running statistics."""
        return sum(layer.statistics for layer in self.layers)

    @property
    def cost(self) -> Cost:
        """Of a forward pass of the whole batch, where it is known."""
        costs = [layer.cost for layer in self.layers if layer.cost is not None]
        return Cost(
            sum(cost.multiply_adds for cost in costs), sum(cost.operations for cost in costs)
        )

    @property
    def parameter_bytes(self) -> int:
        """Memory of the parameters, in float32, without gradients."""
        return _VALUE_BYTES * self.parameters

    @property
    def activation_bytes(self) -> int:
        """Memory of all blobs, in float32, without gradients."""
        return sum(layer.activation_bytes for layer in self.layers)


def summarize(net: Net) -> NetSummary:
    """Return what the layers of a net hold and compute; nothing is run."""
    sources = [top for step in net.steps if not step.bottoms for top in step.tops]
    shape = net.blob_shapes[sources[0]] if sources else ()
    return NetSummary(net.name, net.phase, shape[0] if shape else 1, list(_layers(net)))


def _layers(net: Net) -> Iterator[LayerSummary]:
    counted: set[int] = set()
    for step in net.steps:
        bottoms = [net.blob_shapes[name] for name in step.bottoms]
        shapes = step.layer.top_shapes(bottoms)
        new = [
            (name, blob.numel())
            for name, blob in zip(step.layer.blob_names, step.layer.blobs, strict=True)
            if blob.data_ptr() not in counted
        ]
        counted.update(blob.data_ptr() for blob in step.layer.blobs)
        yield LayerSummary(
            step.param.name,
            step.param.type,
            tuple(zip(step.tops, shapes, strict=True)),
            sum(size for _, size in new),
            sum(size for name, size in new if name in step.layer.statistics),
            layer_cost(step.layer, bottoms, shapes),
            _activations(step, shapes),
        )


def _activations(step: Step, shapes: Sequence[Shape]) -> int:
    if step.param.type in _VIEWS:
        return 0
    tops = zip(step.tops, shapes, strict=True)
    return sum(count(shape) for name, shape in tops if name not in step.bottoms)
