"""Where images come from: Caffe databases, Caffe's transformer, and the sets that the tests use."""
