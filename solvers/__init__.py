"""Caffe's solvers over `prototxt_parser` nets: update rules, lr policies, the loop, snapshots."""

from solvers.callbacks import Action as Action
from solvers.callbacks import Callback as Callback
from solvers.errors import SolverError as SolverError
from solvers.feed import Feed as Feed
from solvers.feed import FeedOpener as FeedOpener
from solvers.lr_policies import policy_curve as policy_curve
from solvers.solver import Solver as Solver
