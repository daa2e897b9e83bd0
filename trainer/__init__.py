"""Where and how a solver runs: data, one process or Spark, exchange strategies, command line."""

import os

# Idle OpenMP threads otherwise spin, and take the cores from whatever else runs on the machine.
# Sleeping made a step 1.6 times as fast beside busy processes and 3 % slower alone
# (benchmarks/openmp_waiting.py). It has an effect only if it is set before PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
