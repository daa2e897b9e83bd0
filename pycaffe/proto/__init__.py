"""Caffe's messages, under the name that Caffe's scripts use."""
