"""Trained parameters in and out: `.caffemodel`, binary or HDF5.

Source: caffe/src/caffe/net.cpp, Net::CopyTrainedLayersFrom, ToProto, ToHDF5.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from google.protobuf.message import DecodeError
from torch import Tensor, nn

from prototxt_parser.atomic import atomic_write
from prototxt_parser.blobs import Chunk, blob_chunks, blob_to_tensor, field, is_legacy
from prototxt_parser.build import param_spec
from prototxt_parser.errors import LayerError, PrototxtError
from prototxt_parser.net import Net, Step
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.upgrade import upgrade_net
from prototxt_parser.weights_hdf5 import is_hdf5, load_hdf5, mismatch

logger = logging.getLogger(__name__)

_NAME, _LAYER, _BLOBS = 1, 100, 7  # field numbers in NetParameter and LayerParameter


def load_weights(net: Net, path: str | Path) -> None:
    """Copy trained parameters into `net`, by layer name.

    Layers of the file that the net lacks are skipped and logged; layers of the net that the file
    lacks keep their values. Old files (V0, V1, 4-D shapes) and HDF5 files load too; the content
    decides, not the extension.

    Raises:
        PrototxtError: The file is missing or damaged, or a layer has another number or shape of
            blobs. The net is unchanged then.
    """
    path = Path(path)
    if is_hdf5(path):
        load_hdf5(net, path)
        return
    copies = list(_matching_blobs(net, read_caffemodel(path), path))
    with torch.no_grad():
        for parameter, value in copies:
            parameter.copy_(value.view(parameter.shape))


def read_caffemodel(path: str | Path) -> caffe_pb2.NetParameter:
    """Read a binary model and upgrade it to the current format.

    Raises:
        PrototxtError: The file is missing, unreadable or no binary NetParameter.
    """
    try:
        model = upgrade_net(caffe_pb2.NetParameter.FromString(Path(path).read_bytes()), str(path))
    except OSError as error:
        raise PrototxtError(f"{path}: cannot read the weights: {error.strerror}") from error
    except DecodeError as error:
        raise PrototxtError(
            f"{path}: expected a binary caffemodel (NetParameter); the file is damaged, cut short, "
            "or of another kind"
        ) from error
    if not model.layer:
        raise PrototxtError(f"{path}: expected a caffemodel; the file holds no layer")
    return model


def _matching_blobs(
    net: Net, model: caffe_pb2.NetParameter, path: Path
) -> Iterator[tuple[nn.Parameter, Tensor]]:
    layers = net.layers
    for source in model.layer:
        if source.name not in layers:
            logger.info("Ignoring source layer %s", source.name)
            continue
        targets = layers[source.name].blobs
        if len(targets) != len(source.blobs):
            raise PrototxtError(
                f"{path}: Incompatible number of blobs for layer {source.name}: "
                f"the net has {len(targets)}, the file {len(source.blobs)}"
            )
        for index, (target, blob) in enumerate(zip(targets, source.blobs, strict=True)):
            try:
                value = blob_to_tensor(blob)
            except LayerError as error:
                raise PrototxtError(
                    f'{path}: layer "{source.name}", blob {index}: {error}'
                ) from error
            if not _shapes_agree(value, target, legacy=is_legacy(blob)):
                raise PrototxtError(mismatch(path, source.name, index, value, target))
            yield target, value


def _shapes_agree(source: Tensor, target: Tensor, *, legacy: bool) -> bool:
    """Compare shapes; a legacy 4-D one may have leading ones that the target lacks."""
    if legacy and target.dim() <= 4:
        return tuple(source.shape) == (*[1] * (4 - target.dim()), *target.shape)
    return source.shape == target.shape


def save_weights(net: Net, path: str | Path, *, with_diffs: bool = False) -> None:
    """Write all layers and their blobs as a binary caffemodel, atomically.

    Args:
        net: The net; every user of a shared blob stores its own copy, as in Caffe.
        path: The file; an existing one is replaced when the new one is complete.
        with_diffs: Store gradients too (`snapshot_diff`).

    Raises:
        PrototxtError: The file cannot be written; a previous one is untouched.
    """
    with atomic_write(Path(path)) as file:
        file.writelines(field(_NAME, [net.name.encode()]))
        for step in net.steps:
            file.writelines(field(_LAYER, _layer_chunks(step, net.phase, with_diffs=with_diffs)))


def _layer_chunks(step: Step, phase: int, *, with_diffs: bool) -> list[Chunk]:
    """Return a layer in the order of field numbers, as protobuf's C++ writes it: its blobs inside.

    The definition is never merged with the values, which would copy them twice.
    """
    definition = caffe_pb2.LayerParameter()
    definition.CopyFrom(step.param)
    del definition.blobs[:]
    if not definition.HasField("phase"):
        definition.phase = phase  # type: ignore[assignment]
    for index in range(len(definition.param), len(step.layer.statistics)):
        definition.param.append(param_spec(step.layer, index))
    before = caffe_pb2.LayerParameter()
    before.CopyFrom(definition)
    before.DiscardUnknownFields()
    for descriptor, _ in definition.ListFields():
        (definition if descriptor.number < _BLOBS else before).ClearField(descriptor.name)
    chunks: list[Chunk] = [before.SerializeToString()]
    for parameter in step.layer.blobs:
        diff = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        chunks += field(_BLOBS, blob_chunks(parameter, diff if with_diffs else None))
    return [*chunks, definition.SerializeToString()]
