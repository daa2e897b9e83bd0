"""Trained parameters in HDF5: `/data/<layer>/<index>`, one dataset per blob.

Source: caffe/src/caffe/net.cpp, Net::ToHDF5, CopyTrainedLayersFromHDF5.
"""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from prototxt_parser.atomic import atomic_path
from prototxt_parser.build import param_spec
from prototxt_parser.errors import PrototxtError
from prototxt_parser.net import Net
from prototxt_parser.shapes import shape_text

logger = logging.getLogger(__name__)


def is_hdf5(path: Path) -> bool:
    """Return whether the file's content is HDF5; False for a missing file."""
    return bool(h5py.is_hdf5(path))


def load_hdf5(net: Net, path: Path) -> None:
    """Copy trained parameters from an HDF5 model into `net`, by layer name.

    Differs from the binary format: shapes must be equal exactly, and the file may lack blobs that
    their layer only shares.

    Raises:
        PrototxtError: The file cannot be read, or a layer has other blobs. The net is unchanged.
    """
    copies: list[tuple[nn.Parameter, Tensor]] = []
    layers = net.layers
    try:
        with h5py.File(path, "r") as file:
            for name, group in _layer_groups(file["data"]):
                if name not in layers:
                    logger.info("Ignoring source layer %s", name)
                    continue
                copies += _layer_copies(net, name, group, path)
    except (OSError, KeyError) as error:
        raise PrototxtError(
            f"{path}: expected an HDF5 caffemodel (/data/<layer>/<index>): {error}"
        ) from error
    with torch.no_grad():
        for parameter, value in copies:
            parameter.copy_(value)


def _layer_groups(group: h5py.Group, prefix: str = "") -> list[tuple[str, h5py.Group]]:
    """Return all groups with their layer names; a name may contain '/', which nests groups."""
    found: list[tuple[str, h5py.Group]] = []
    stray = [key for key, child in group.items() if isinstance(child, h5py.Dataset)]
    if stray and not prefix:
        raise KeyError(f"/data/{stray[0]} holds values itself, not one dataset per blob")
    for key, child in group.items():
        if isinstance(child, h5py.Group):
            name = f"{prefix}{key}"
            is_layer = not len(child) or any(isinstance(x, h5py.Dataset) for x in child.values())
            found += [(name, child)] if is_layer else []
            found += _layer_groups(child, f"{name}/")
    return found


def _layer_copies(
    net: Net, name: str, group: h5py.Group, path: Path
) -> list[tuple[nn.Parameter, Tensor]]:
    layer, copies = net.layers[name], []
    stored = {key for key, child in group.items() if isinstance(child, h5py.Dataset)}
    if len(stored) > len(layer.blobs):
        raise PrototxtError(
            f"{path}: Incompatible number of blobs for layer {name}: "
            f"the net has {len(layer.blobs)}, the file {len(stored)}"
        )
    owned = owned_blobs(net)
    for index, parameter in enumerate(layer.blobs):
        if str(index) not in stored:
            if (name, index) in owned:
                raise PrototxtError(f"{path}: layer {name} lacks its blob {index}")
            continue
        value = torch.from_numpy(np.asarray(group[str(index)], dtype=np.float32))
        if value.shape != parameter.shape:
            raise PrototxtError(mismatch(path, name, index, value, parameter))
        copies.append((parameter, value))
    return copies


def mismatch(path: Path, layer: str, index: int, source: Tensor, target: Tensor) -> str:
    """Return Caffe's message for a blob of the wrong shape."""
    return (
        f"{path}: Cannot copy param {index} weights from layer '{layer}'; shape mismatch.  "
        f"Source param shape is {shape_text(source.shape)}; "
        f"target param shape is {shape_text(target.shape)}. "
        "To learn this layer's parameters from scratch rather than copying from a saved net, "
        "rename the layer."
    )


def owned_blobs(net: Net) -> set[tuple[str, int]]:
    """Return (layer, index) of every blob that no earlier layer owns."""
    seen: set[str] = set()
    owned: set[tuple[str, int]] = set()
    for step in net.steps:
        for index in range(len(step.layer.blobs)):
            name = param_spec(step.layer, index).name
            if not name or name not in seen:
                owned.add((step.param.name, index))
            seen.add(name)
    return owned


def save_hdf5(net: Net, path: Path, *, with_diffs: bool = False) -> None:
    """Write all layers and the blobs they own as HDF5, atomically.

    Differs from Caffe: a layer name with '/' nests groups; Caffe fails on it.

    Raises:
        PrototxtError: The file cannot be written; a previous one is untouched.
    """
    owned = owned_blobs(net)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for step in net.steps:
            name = step.param.name
            data = file.require_group(f"data/{name}")
            diffs = file.require_group(f"diff/{name}") if with_diffs else None
            for index, parameter in enumerate(step.layer.blobs):
                if (name, index) in owned:
                    data[str(index)] = _array(parameter)
                if diffs is not None:
                    diffs[str(index)] = _array(
                        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                    )


def _array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return tensor.detach().cpu().float().numpy()
