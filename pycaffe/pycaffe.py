"""The classes of the interface, where Caffe's scripts import them from too."""

from pycaffe.net import Net as Net
from pycaffe.solvers import AdaDeltaSolver as AdaDeltaSolver
from pycaffe.solvers import AdaGradSolver as AdaGradSolver
from pycaffe.solvers import AdamSolver as AdamSolver
from pycaffe.solvers import NesterovSolver as NesterovSolver
from pycaffe.solvers import RMSPropSolver as RMSPropSolver
from pycaffe.solvers import SGDSolver as SGDSolver
