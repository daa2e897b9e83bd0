"""A layer type of the user's own, in a module, with a net that uses it and its solver."""

MODULE = """
from prototxt_parser import Layer, register_layer
@register_layer("Same")
class Same(Layer):
    def top_shapes(self, bottoms): return list(bottoms)
    def forward(self, *bottoms): return bottoms[0] * 1
"""
NET = """
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } } }
layer { name: "s" type: "Same" bottom: "x" top: "s" }
layer { name: "i" type: "InnerProduct" bottom: "s" top: "i" inner_product_param { num_output: 3 } }
layer { name: "l" type: "EuclideanLoss" bottom: "i" bottom: "y" top: "l" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 4 snapshot_prefix: "same"'
