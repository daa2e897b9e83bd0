"""Which net and solver a run uses, from what the command line names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prototxt_parser.build import data_specs
from prototxt_parser.definition import NetDefinition
from prototxt_parser.errors import PrototxtError
from prototxt_parser.files import find_model, read_net, read_solver
from prototxt_parser.layers.registry import layer_class
from prototxt_parser.proto.caffe_pb2 import SolverParameter
from prototxt_parser.state import filter_net
from solvers.settings import train_choice
from trainer.errors import UsageError

_NET_SUFFIXES = ("_train_test", "_train_val", "_deploy", "_train", "_test")
_NET_FIELDS = ("train_net_param", "train_net", "test_net_param", "test_net", "net_param", "net")


@dataclass(frozen=True)
class Recipe:
    """A net with its solver, ready to build.

    Attributes:
        solver_path: The solver file.
        param: Its settings; `snapshot_prefix` leads to where snapshots go.
        net: The definition to train and test.
        notes: What was decided for the user, a sentence each.
    """

    solver_path: Path
    param: SolverParameter
    net: NetDefinition | None
    notes: tuple[str, ...]

    @property
    def batch_size(self) -> int:
        """Items per iteration: batch size times iter_size; 0 for a net without data layers."""
        choice = train_choice(self.param, self.net)
        specs = data_specs(choice.definition, choice.state)
        return max((spec.batch_size for spec in specs), default=0) * self.param.iter_size


def read_recipe(net: str | None, solver: str | None, out: Path | None) -> Recipe:
    """Read the files that a run needs.

    Args:
        net: Net file, or None to take the one that the solver names.
        solver: Solver file, or None to take the one beside the net, by Caffe's naming.
        out: Folder for snapshots instead of the directory of `snapshot_prefix`.

    Raises:
        UsageError: Neither is given, or there is no solver beside the net.
        PrototxtError: A file is missing or wrong.
    """
    notes: list[str] = []
    if net is None and solver is None:
        raise UsageError("Need a solver definition to train: give --solver, --net, or both")
    definition = read_net(net) if net is not None else None
    if solver is None and net is not None:
        solver = str(_solver_beside(find_model(net), by_name=Path(net).name == net))
        notes.append(f"no --solver given: using {solver}")
    path = find_model(str(solver))
    param = read_solver(path)
    if definition is not None and not _is_trainable(definition, param):
        notes.append(f"{net} has no loss: training the net that {path} names")
        definition = None
    if definition is not None:
        for name in _NET_FIELDS:
            param.ClearField(name)
    if out is not None:
        param.snapshot_prefix = str(out / Path(param.snapshot_prefix).name)
    return Recipe(path, param, definition, tuple(notes))


def _solver_beside(net: Path, *, by_name: bool) -> Path:
    """Return the solver of a net: `X_solver.prototxt` for `X[_train_test].prototxt`, or `solver…`.

    A net found in the working directory by its bare name may have its solver among the shipped.
    """
    stem = net.stem
    for suffix in _NET_SUFFIXES:
        stem = stem.removesuffix(suffix)
    names = [f"{stem}_solver.prototxt", "solver.prototxt"]
    for name in names:
        if (net.parent / name).is_file():
            return net.parent / name
    if by_name:
        try:
            return find_model(names[0])
        except PrototxtError:
            pass
    raise UsageError(
        f"{net}: no solver beside it (looked for {' and '.join(names)}). Give one with --solver"
    )


def _is_trainable(definition: NetDefinition, param: SolverParameter) -> bool:
    """Return whether the TRAIN net has a loss; unknown layers are left to the builder."""
    state = train_choice(SolverParameter(train_state=param.train_state), definition).state
    for layer in filter_net(definition, state).param.layer:
        try:
            is_loss = layer_class(layer.type).is_loss
        except PrototxtError:
            return True
        if is_loss or any(layer.loss_weight):
            return True
    return False
