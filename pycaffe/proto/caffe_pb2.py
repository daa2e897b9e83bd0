"""Caffe's messages: the very classes of `prototxt_parser.proto.caffe_pb2`."""

from prototxt_parser.proto.caffe_pb2 import *  # noqa: F403
