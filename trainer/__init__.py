"""Where and how a solver runs: data, one process or Spark, exchange strategies, command line."""
