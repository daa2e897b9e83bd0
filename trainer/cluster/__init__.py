"""Where workers run: on Spark, or in turn in this process."""

from trainer.cluster.base import Cluster
from trainer.cluster.in_process import InProcessCluster
from trainer.errors import TrainerError
from trainer.plan import IN_PROCESS, DistributedPlan

__all__ = ["Cluster", "InProcessCluster", "open_cluster"]


def open_cluster(plan: DistributedPlan) -> Cluster:
    """Return the cluster that a plan names, still to be entered.

    Raises:
        TrainerError: It needs Spark, which is not installed.
    """
    if plan.master == IN_PROCESS:
        return InProcessCluster(plan.threads)
    try:
        from trainer.cluster.spark import SparkCluster
    except ImportError as error:
        raise TrainerError(
            f"workers on Spark need pyspark and pyarrow ({error}): pip install 'torrefy[spark]', "
            f"or let the workers take turns with --master {IN_PROCESS}"
        ) from error
    return SparkCluster(plan)
