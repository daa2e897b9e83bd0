"""Where and how a solver runs: data, one process or Spark, exchange strategies, command line."""

import os

# Idle OpenMP threads otherwise spin, and take the cores from whatever else runs on the machine:
# beside other work a step is several times as slow (benchmarks/openmp_waiting.py). This has an
# effect only if it is set before PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
