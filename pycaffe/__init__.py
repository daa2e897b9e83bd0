"""Caffe's Python interface.

import pycaffe as caffe

net = caffe.Net("lenet.prototxt", caffe.TEST, weights="lenet_iter_10000.caffemodel")
net.blobs["data"].data[...] = images
probabilities = net.forward()["prob"]

Scripts that say `import caffe` run unedited after `pycaffe.install_as_caffe()`.
"""

from prototxt_parser.live_blob import Blob as Blob
from prototxt_parser.python_layer import PythonLayerBase
from prototxt_parser.user_code import allow_loaded_modules
from prototxt_parser.user_code import allow_python_layers as allow_python_layers
from pycaffe import io as io
from pycaffe.classifier import Classifier as Classifier
from pycaffe.detector import Detector as Detector
from pycaffe.naming import install_as_caffe as install_as_caffe
from pycaffe.net import Net as Net
from pycaffe.net_spec import NetSpec as NetSpec
from pycaffe.net_spec import layers as layers
from pycaffe.net_spec import params as params
from pycaffe.net_spec import to_proto as to_proto
from pycaffe.runtime import NCCL as NCCL
from pycaffe.runtime import TEST as TEST
from pycaffe.runtime import TRAIN as TRAIN
from pycaffe.runtime import Timer as Timer
from pycaffe.runtime import has_nccl as has_nccl
from pycaffe.runtime import init_log as init_log
from pycaffe.runtime import layer_type_list as layer_type_list
from pycaffe.runtime import log as log
from pycaffe.runtime import set_device as set_device
from pycaffe.runtime import set_mode_cpu as set_mode_cpu
from pycaffe.runtime import set_mode_gpu as set_mode_gpu
from pycaffe.runtime import set_multiprocess as set_multiprocess
from pycaffe.runtime import set_random_seed as set_random_seed
from pycaffe.runtime import set_solver_count as set_solver_count
from pycaffe.runtime import set_solver_rank as set_solver_rank
from pycaffe.runtime import solver_count as solver_count
from pycaffe.runtime import solver_rank as solver_rank
from pycaffe.solvers import AdaDeltaSolver as AdaDeltaSolver
from pycaffe.solvers import AdaGradSolver as AdaGradSolver
from pycaffe.solvers import AdamSolver as AdamSolver
from pycaffe.solvers import NesterovSolver as NesterovSolver
from pycaffe.solvers import RMSPropSolver as RMSPropSolver
from pycaffe.solvers import SGDSolver as SGDSolver
from pycaffe.solvers import get_solver as get_solver

__version__ = "1.0.0"

Layer = PythonLayerBase

allow_loaded_modules()
