"""Caffe net and solver definitions in, PyTorch modules out.

definition = read_net("lenet.prototxt")
net = build_net(definition, "TEST", input_shapes={"data": (1, 1, 28, 28), "label": (1,)})
load_weights(net, "lenet_iter_10000.caffemodel")
outputs = net({"data": images, "label": labels})
"""

from prototxt_parser.build import build_net as build_net
from prototxt_parser.custom_fields import add_layer_fields as add_layer_fields
from prototxt_parser.custom_fields import layer_field as layer_field
from prototxt_parser.definition import NetDefinition as NetDefinition
from prototxt_parser.errors import LayerError as LayerError
from prototxt_parser.errors import PrototxtError as PrototxtError
from prototxt_parser.files import find_model as find_model
from prototxt_parser.files import list_models as list_models
from prototxt_parser.files import read_net as read_net
from prototxt_parser.files import read_solver as read_solver
from prototxt_parser.layers.base import Arity as Arity
from prototxt_parser.layers.base import Layer as Layer
from prototxt_parser.layers.base import LayerContext as LayerContext
from prototxt_parser.layers.base import at_least as at_least
from prototxt_parser.layers.base import exactly as exactly
from prototxt_parser.layers.registry import register_layer as register_layer
from prototxt_parser.net import Net as Net
from prototxt_parser.proto.caffe_pb2 import FillerParameter as FillerParameter
from prototxt_parser.proto.caffe_pb2 import LayerParameter as LayerParameter
from prototxt_parser.shapes import Shape as Shape
from prototxt_parser.weights import load_weights as load_weights
from prototxt_parser.weights import save_weights as save_weights
