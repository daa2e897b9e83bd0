"""Snapshots of a whole solver: the model, the state, and what Caffe's formats have no room for.

A snapshot at iteration N is `{prefix}_iter_N.caffemodel` and `….solverstate` (`….h5` each with
snapshot_format HDF5), which Caffe loads, and `{prefix}_iter_N.resume.json` beside them: data
cursors, random state and the loss window. The state file is written last, so a state on disk
always has its model. Without the third file a run resumes as Caffe's does: from the first batch.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prototxt_parser.blobs import blob_chunks, blob_to_tensor
from prototxt_parser.errors import PrototxtError
from prototxt_parser.net import Net
from prototxt_parser.proto.caffe_pb2 import BlobProto, SolverParameter
from prototxt_parser.shapes import shape_text
from prototxt_parser.weights import load_weights, save_weights
from prototxt_parser.weights_hdf5 import save_hdf5
from solvers.errors import SolverError
from solvers.state_files import (
    SolverState,
    history_blobs,
    read_resume,
    read_state,
    resume_path,
    write_resume,
    write_state,
)

if TYPE_CHECKING:
    from solvers.solver import Solver

logger = logging.getLogger(__name__)


def probe_prefix(prefix: str) -> None:
    """Check that snapshots can be written, as Caffe does before it trains.

    Raises:
        SolverError: The directory is missing or not writable.
    """
    path = Path(f"{prefix}_iter_0.tempfile")
    try:
        path.touch()
        path.unlink()
    except OSError as error:
        raise SolverError(
            f"Cannot write to snapshot prefix '{prefix}' ({error.strerror}).  "
            "Make sure that the directory exists and is writable."
        ) from error


def write_snapshot(solver: Solver) -> Path:
    """Write the three files of a snapshot, each atomically; return the state file's path."""
    param = solver.param
    is_hdf5 = param.snapshot_format == SolverParameter.HDF5
    suffix = ".h5" if is_hdf5 else ""
    kind = "HDF5" if is_hdf5 else "binary proto"
    stem = f"{param.snapshot_prefix}_iter_{solver.iteration}"
    model, state = Path(f"{stem}.caffemodel{suffix}"), Path(f"{stem}.solverstate{suffix}")
    logger.info("Snapshotting to %s file %s", kind, model)
    save = save_hdf5 if is_hdf5 else save_weights
    save(solver.net, model, with_diffs=param.snapshot_diff)
    logger.info("Snapshotting solver state to %s file %s", kind, state)
    _write_state(solver, model, state)
    return state


def write_files(solver: Solver, stem: Path) -> list[Path]:
    """Write a binary snapshot under a name of one's own, unlogged.

    Args:
        solver: What to write.
        stem: Path without extensions.

    Returns:
        Model, state and the file beside it.
    """
    model, state = stem.with_suffix(".caffemodel"), stem.with_suffix(".solverstate")
    save_weights(solver.net, model)
    _write_state(solver, model, state)
    return [model, state, resume_path(state)]


def _write_state(solver: Solver, model: Path, state: Path) -> None:
    values = position_values(solver)
    values["test_feeds"] = [test.feed.state_dict() for test in solver.tests]
    write_resume(state, values)
    history = history_blobs(solver.history, solver.net.flat.split)
    write_state(state, SolverState(solver.iteration, str(model), solver.current_step, history))


def position_values(solver: Solver) -> dict[str, Any]:
    """Return where a solver is in its data and random numbers, as JSON values."""
    return {
        "iteration": solver.iteration,
        "seed": solver.net.random.seed,
        "feed": solver.feed.state_dict(),
        "random": solver.net.random.state_dict(),
        "carried": [_encode(net.carried_states) for net in _nets(solver)],
        "loss_window": solver.loss_window.state_dict(),
    }


def restore_solver(solver: Solver, path: Path) -> bool:
    """Set weights, history, iteration and position from a state file.

    Nothing is changed unless all of it fits.

    Returns:
        Whether data cursors, random state and loss window were restored too.

    Raises:
        SolverError: The state is missing, damaged, or of another solver type or net.
        PrototxtError: The model that it names cannot be loaded.
    """
    logger.info("Restoring previous solver status from %s", path)
    state = read_state(path)
    values = read_resume(path, state.iteration)
    history = history_blobs(solver.history, solver.net.flat.split)
    _check_history(solver, history, state, path)
    if state.learned_net:
        load_weights(solver.net, _model_path(state, path))
    logger.info("SGDSolver: restoring history")
    with torch.no_grad():
        for target, blob in zip(history, state.history, strict=True):
            target.copy_(blob.view(target.shape))
    solver.iteration, solver.current_step = state.iteration, state.current_step
    if values is None:
        logger.info("No %s: the data starts again, as in Caffe", resume_path(path).name)
        return False
    restore_position(solver, values, str(resume_path(path)))
    return True


def _nets(solver: Solver) -> list[Net]:
    return [solver.net, *(test.net for test in solver.tests)]


def _encode(states: Mapping[str, Tensor]) -> dict[str, str]:
    """Return tensors as base64 text of serialised blobs."""
    return {
        name: base64.b64encode(b"".join(blob_chunks(value))).decode()
        for name, value in states.items()
    }


def _decode(states: Mapping[str, str]) -> dict[str, Tensor]:
    return {
        name: blob_to_tensor(BlobProto.FromString(base64.b64decode(text)))
        for name, text in states.items()
    }


def _check_history(solver: Solver, expected: list[Tensor], state: SolverState, path: Path) -> None:
    if len(state.history) != len(expected):
        raise SolverError(
            f"{path}: Incorrect length of history blobs: {solver.param.type} on this net needs "
            f"{len(expected)}, the file has {len(state.history)}. Resume with the solver type and "
            "net that wrote it"
        )
    for index, (target, blob) in enumerate(zip(expected, state.history, strict=True)):
        if target.numel() != blob.numel():
            raise SolverError(
                f"{path}: history blob {index}: expected shape {shape_text(target.shape)}; "
                f"received {shape_text(blob.shape)}"
            )


def _model_path(state: SolverState, path: Path) -> Path:
    """Return the model's path as recorded, or beside the state if the files were moved."""
    recorded = Path(state.learned_net)
    beside = path.with_name(recorded.name)
    if not recorded.exists() and not beside.exists():
        raise PrototxtError(
            f"{path}: its model {recorded} is neither there (paths are relative to the working "
            f"directory) nor beside it as {beside}"
        )
    return recorded if recorded.exists() else beside


def restore_position(solver: Solver, values: Mapping[str, Any], where: str) -> None:
    """Go where `position_values` was taken.

    Args:
        solver: Of the same net and data.
        values: What was returned there; feeds of test nets may be among them.
        where: They come from, for the message.

    Raises:
        SolverError: They are damaged, or of another net.
    """
    try:
        solver.feed.load_state_dict(values["feed"])
        for test, position in zip(solver.tests, values.get("test_feeds", ()), strict=False):
            test.feed.load_state_dict(position)
        solver.net.random.load_state_dict(values["random"])
        for net, states in zip(_nets(solver), values["carried"], strict=False):
            net.carried_states = _decode(states)
        solver.loss_window.load_state_dict(values["loss_window"])
    except (KeyError, TypeError, ValueError) as error:
        raise SolverError(
            f"{where}: does not fit this run ({error!r}). "
            "Delete it to resume as Caffe does, from the first batch"
        ) from error
