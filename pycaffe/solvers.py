"""Caffe's solvers for Python.

Source: caffe/python/caffe/_caffe.cpp, Solver; caffe/src/caffe/solver.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

from prototxt_parser.data_spec import DataSpec
from prototxt_parser.files import read_solver
from prototxt_parser.live_net import LiveNet
from prototxt_parser.net import Net as PlainNet
from prototxt_parser.proto.caffe_pb2 import SolverParameter
from prototxt_parser.random_source import RandomSource
from pycaffe.building import StrPath, build_live_net, check_file, find_prototxt, user_errors
from pycaffe.net import Net
from pycaffe.runtime import NCCL, next_seed, raise_no_nccl
from solvers import Callback, Feed
from solvers import Solver as PlainSolver
from solvers.errors import SolverError
from solvers.settings import NetChoice


class _LiveSolver(PlainSolver):
    """A solver over live nets, which fetch their own batches."""

    net: LiveNet

    def _build(self, choice: NetChoice, random: RandomSource) -> tuple[PlainNet, Feed]:
        return build_live_net(choice.definition, choice.state, random)


class _Functions(Callback):
    """Two functions as a solver's callback."""

    def __init__(
        self, on_start: Callable[[], object], on_gradients_ready: Callable[[], object]
    ) -> None:
        self._on_start, self._on_gradients_ready = on_start, on_gradients_ready

    def on_start(self, solver: PlainSolver) -> None:
        self._on_start()

    def on_gradients_ready(self, solver: PlainSolver) -> None:
        self._on_gradients_ready()


class Solver:
    """Trains the net that a solver file names. Use a subclass, or `get_solver`.

    Differs from Caffe: test nets use the train net's parameters from the start, not from the first
    test; looking at `lr` never advances `multistep`; `param` is the whole SolverParameter.

    Args:
        solver_file: Settings; the class, not their `type`, says which rule updates.

    Attributes:
        net: The train net.
        test_nets: The test nets.

    Raises:
        RuntimeError: The file is not there.
        SolverError, PrototxtError: The settings or nets cannot be used.
    """

    type: ClassVar[str]

    def __init__(self, solver_file: StrPath) -> None:
        param = read_solver(find_prototxt(solver_file))
        param.type = self.type
        seed = param.random_seed if param.random_seed >= 0 else next_seed()
        with user_errors():
            self._solver = _LiveSolver(param, _open_nothing, seed=seed)
        self.net = Net.of(self._solver.net, is_trained=True)
        self.test_nets = [Net.of(cast(LiveNet, test.net)) for test in self._solver.tests]

    @property
    def iter(self) -> int:
        """Number of updates so far."""
        return self._solver.iteration

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        return self._solver.lr

    @property
    def param(self) -> SolverParameter:
        """The settings; a `base_lr` written here counts from the next update on."""
        return self._solver.param

    def step(self, count: int) -> None:
        """Run `count` iterations, with the tests, displays and snapshots that are due."""
        self._solver.step(count)

    def solve(self, resume_file: StrPath | None = None) -> None:
        """Run to `max_iter`, from a state if one is given."""
        if resume_file is not None:
            self.restore(resume_file)
        self._solver.solve()

    def restore(self, state_file: StrPath) -> None:
        """Continue from a `.solverstate`, binary or HDF5."""
        self._solver.restore(check_file(state_file))

    def snapshot(self) -> None:
        """Write model and state, named after `snapshot_prefix` and the iteration."""
        self._solver.snapshot()

    def apply_update(self) -> None:
        """Update the parameters once from the diffs there are, and count the iteration."""
        self._solver.apply_update()

    def add_callback(
        self,
        on_start: Callable[[], object] | NCCL,
        on_gradients_ready: Callable[[], object] | None = None,
    ) -> None:
        """Run functions before every iteration, and between its last backward pass and the update.

        Raises:
            TypeError: The second function is missing.
            PrototxtError: It is an NCCL object.
        """
        if isinstance(on_start, NCCL):
            raise_no_nccl()
        if on_gradients_ready is None:
            raise TypeError("add_callback takes on_start and on_gradients_ready")
        self._solver.callbacks.append(_Functions(on_start, on_gradients_ready))

    def share_weights(self, net: Net) -> None:
        """Have `net` use the train net's parameters."""
        net.share_with(self.net)


class SGDSolver(Solver):
    """Momentum."""

    type = "SGD"


class NesterovSolver(SGDSolver):
    """Nesterov's momentum."""

    type = "Nesterov"


class AdaGradSolver(SGDSolver):
    """AdaGrad."""

    type = "AdaGrad"


class RMSPropSolver(SGDSolver):
    """RMSProp."""

    type = "RMSProp"


class AdaDeltaSolver(SGDSolver):
    """AdaDelta."""

    type = "AdaDelta"


class AdamSolver(SGDSolver):
    """Adam."""

    type = "Adam"


_SOLVERS: Sequence[type[Solver]] = (
    SGDSolver,
    NesterovSolver,
    AdaGradSolver,
    RMSPropSolver,
    AdaDeltaSolver,
    AdamSolver,
)


def get_solver(solver_file: StrPath) -> Solver:
    """Return a solver of the class that the file's `type` names.

    Raises:
        RuntimeError: The file is not there.
        SolverError: An unknown type.
    """
    name = read_solver(find_prototxt(solver_file)).type
    for solver_class in _SOLVERS:
        if solver_class.type == name:
            return solver_class(solver_file)
    known = ", ".join(each.type for each in _SOLVERS)
    raise SolverError(f"Unknown solver type: {name} (known types: {known})")


def _open_nothing(specs: Sequence[DataSpec]) -> Any:
    raise SolverError(f"live nets open their own data; asked for {[spec.name for spec in specs]}")
