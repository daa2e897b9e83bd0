"""`.solverstate` files, binary and HDF5, and the file beside them that holds what they cannot.

Source: caffe/src/caffe/solvers/sgd_solver.cpp, SnapshotSolverStateToBinaryProto, …ToHDF5,
RestoreSolverStateFromBinaryProto, …FromHDF5.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from prototxt_parser.atomic import atomic_path, atomic_write
from prototxt_parser.blobs import blob_chunks, blob_to_tensor, field
from prototxt_parser.errors import PrototxtError
from prototxt_parser.proto import caffe_pb2
from solvers.errors import SolverError

_HISTORY = 3  # field number in SolverState


@dataclass(frozen=True)
class SolverState:
    """What a `.solverstate` holds.

    Attributes:
        iteration: Completed updates.
        learned_net: Path of the model file as written, relative to the working directory then.
        current_step: Position of step and multistep policies.
        history: Blobs in order: slot A of every parameter, then slot B.
    """

    iteration: int
    learned_net: str
    current_step: int
    history: list[Tensor]


def is_hdf5_state(path: Path) -> bool:
    """Return whether Caffe would read `path` as HDF5: by its extension."""
    return path.suffix == ".h5"


def write_state(path: Path, state: SolverState) -> None:
    """Write a state file atomically, as HDF5 if its name ends in `.h5`.

    Raises:
        PrototxtError: The file system refuses.
    """
    if is_hdf5_state(path):
        _write_hdf5(path, state)
        return
    head = caffe_pb2.SolverState(
        iter=state.iteration, learned_net=state.learned_net, current_step=state.current_step
    )
    with atomic_write(path) as file:
        file.write(head.SerializeToString())
        for blob in state.history:
            file.writelines(field(_HISTORY, blob_chunks(blob)))


def _write_hdf5(path: Path, state: SolverState) -> None:
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file["iter"] = np.array([state.iteration], dtype=np.int32)
        file["current_step"] = np.array([state.current_step], dtype=np.int32)
        file["learned_net"] = np.bytes_(state.learned_net.encode())
        history = file.create_group("history")
        for index, blob in enumerate(state.history):
            history[str(index)] = blob.detach().cpu().float().numpy()


def read_state(path: Path) -> SolverState:
    """Read a state file.

    Raises:
        SolverError: It is missing, damaged or of another kind.
    """
    try:
        return _read_hdf5(path) if is_hdf5_state(path) else _read_binary(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SolverError(f"{path}: cannot read the solver state: {reason}") from error
    except (DecodeError, KeyError, PrototxtError) as error:
        raise SolverError(
            f"{path}: expected a solverstate; the file is damaged, cut short, or of another kind "
            f"({error})"
        ) from error


def _read_binary(path: Path) -> SolverState:
    message = caffe_pb2.SolverState.FromString(path.read_bytes())
    history = [blob_to_tensor(blob) for blob in message.history]
    return SolverState(message.iter, message.learned_net, message.current_step, history)


def _read_hdf5(path: Path) -> SolverState:
    with h5py.File(path, "r") as file:
        history = file["history"]
        blobs = [
            torch.from_numpy(np.asarray(history[str(index)], dtype=np.float32))
            for index in range(len(history))
        ]
        return SolverState(
            int(np.asarray(file["iter"]).item()),
            file["learned_net"][()].decode() if "learned_net" in file else "",
            int(np.asarray(file["current_step"]).item()),
            blobs,
        )


def history_blobs(
    history: Sequence[Tensor], split: Callable[[Tensor], list[Tensor]]
) -> list[Tensor]:
    """Return the blobs of flat history slots in file order; `split` is `FlatParameters.split`."""
    return [blob for slot in history for blob in split(slot)]


def resume_path(state_path: Path) -> Path:
    """Return the path of the file beside a state: `x.solverstate` → `x.resume.json`."""
    name = state_path.name.removesuffix(".h5").removesuffix(".solverstate")
    return state_path.with_name(f"{name}.resume.json")


def write_resume(state_path: Path, values: dict[str, Any]) -> None:
    """Write the file beside a state: JSON, atomically.

    Raises:
        PrototxtError: The file system refuses.
    """
    with atomic_write(resume_path(state_path)) as file:
        file.write(json.dumps(values).encode())


def read_resume(state_path: Path, iteration: int | None) -> dict[str, Any] | None:
    """Return what lies beside a state, or None if there is nothing (a snapshot of Caffe's own).

    Args:
        state_path: The state file.
        iteration: Iteration that both must have; None accepts any.

    Raises:
        SolverError: The file is damaged or belongs to another iteration.
    """
    path = resume_path(state_path)
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_bytes())
        found, _ = values["iteration"], values["seed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SolverError(
            f"{path}: damaged ({error}). Delete it to resume as Caffe does, from the first batch"
        ) from error
    if iteration is not None and found != iteration:
        raise SolverError(
            f"{path}: belongs to iteration {found}, the state to {iteration}. "
            "Delete it to resume as Caffe does, from the first batch"
        )
    return dict(values)


def saved_seed(state_path: Path) -> int | None:
    """Return the seed of the run that wrote a snapshot; None for a snapshot of Caffe's own.

    Raises:
        SolverError: The file beside the state is damaged.
    """
    values = read_resume(state_path, None)
    return None if values is None else int(values["seed"])
