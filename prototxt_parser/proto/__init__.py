"""Caffe's and DeepSpark's messages: the `.proto` files and the modules generated from them."""
