"""`CaffeEstimator`: a Caffe net and solver as a `pyspark.ml` Estimator."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, final

from pyspark.ml import Estimator
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
from pyspark.sql import DataFrame

from prototxt_parser.build import build_for_state
from prototxt_parser.net import Net
from prototxt_parser.proto.caffe_pb2 import SolverParameter
from prototxt_parser.text import print_text
from prototxt_parser.weights import save_weights
from solvers import Solver
from trainer.cluster.dataframe.cluster import DataFrameCluster
from trainer.cluster.dataframe.columns import (
    check_session,
    cores_of_a_task,
    lies_in,
    select,
    split,
)
from trainer.cluster.dataframe.evaluation import evaluate
from trainer.cluster.dataframe.heads import label_rules
from trainer.cluster.dataframe.inputs import with_fed_inputs
from trainer.cluster.dataframe.model import CaffeModel
from trainer.cluster.dataframe.model_files import TrainedNet
from trainer.cluster.dataframe.nets import FrozenNet
from trainer.cluster.dataframe.params import TrainingParams
from trainer.cluster.dataframe.prediction import deploy
from trainer.cluster.dataframe.row_feed import ShapesOnly
from trainer.cluster.dataframe.summary import LossHistory, TrainingSummary
from trainer.cluster.dataframe.training import (
    Side,
    columns_of,
    make_plan,
    read_files,
    read_sides,
    without_side_effects,
)
from trainer.coordinator import run_distributed
from trainer.plan import DistributedPlan


@final
class CaffeEstimator(
    Estimator[CaffeModel],
    TrainingParams,
    DefaultParamsReadable["CaffeEstimator"],
    DefaultParamsWritable,
):
    """Trains a net on the rows of a DataFrame, where they are.

    The rows go to `num_workers` tasks, which run at once, keep their rows in memory and exchange
    what they learn as `strategy` says. The DataFrame stands in for the data layers of the net: what
    those say of sources is ignored, `transform_param` counts. See docs/dataframes.md.

    Args:
        params: Params by name, as `num_workers=2` or `numWorkers=2`; `explainParams()` lists them.

    Raises:
        UsageError: There is no such Param.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__()
        self._setDefault(strategy="sparknet", numWorkers=1, device="cpu")
        self._setDefault(forceRepartition=False)
        self.setParams(**params)

    def _fit(self, dataset: DataFrame) -> CaffeModel:
        """Train; see the class.

        Raises:
            TrainerError, PrototxtError, SolverError: Something does not fit, or a worker failed;
                says what, where it was and what to do.
        """
        check_session(dataset)
        self.extensions().install()
        param, net = read_files(self)
        plan = make_plan(self, param, cores_of_a_task(dataset))
        rows, held_out = split(dataset, self.optional(self.validationIndicatorCol))
        training, testing = read_sides(self, param, net, rows)
        with closing(_solver(without_side_effects(param), training, plan.seed)) as solver:
            rules = label_rules(training.definition, training.state, solver.net)
            training, testing = training.with_labels(rules), testing.with_labels(rules)
            before = {}
            if param.test_initialization:  # so that a wrong row is found before the work
                before = _validation(testing, held_out, _caffemodel(training, solver.net), plan)
            frame = self._dealt(rows, training, dataset)
            cluster = DataFrameCluster(plan, frame, training.inputs, training.batch_size)
            losses = LossHistory()
            definition = with_fed_inputs(training.definition)
            result = run_distributed(solver, plan, observer=losses, net=definition, cluster=cluster)
            weights, shapes = _caffemodel(training, solver.net), solver.net.blob_shapes
        after = _validation(testing, held_out, weights, plan)
        deployed = deploy(testing, shapes, named=self.isDefined(self.inputCols))
        texts = print_text(training.definition.param), print_text(param)
        model = CaffeModel(TrainedNet(*texts, weights, deployed))
        numbers = result.iteration, result.samples, result.seconds
        model.summary = TrainingSummary(
            *numbers, tuple(losses.losses), before, after, result.workers
        )
        return self._copyValues(model._resetUid(self.uid))

    def _dealt(self, rows: DataFrame, training: Side, dataset: DataFrame) -> DataFrame:
        """Return the columns that training needs, with a partition for each worker."""
        weight = columns_of(self).sampling_weight(list(training.columns))
        chosen = select(rows, training.columns, weight)
        count, force = self.getOrDefault(self.numWorkers), self.getOrDefault(self.forceRepartition)
        return chosen if lies_in(dataset, count) and not force else chosen.repartition(count)


def _solver(param: SolverParameter, training: Side, seed: int) -> Solver:
    """Return the driver's solver, whose net is never run."""
    return Solver(
        param,
        lambda specs: ShapesOnly(training.shapes),
        net=with_fed_inputs(training.definition),
        seed=seed,
        with_test_nets=False,
    )


def _validation(
    testing: Side, held_out: DataFrame | None, weights: bytes, plan: DistributedPlan
) -> dict[str, float]:
    """Return the means over the rows held out; {} if none are."""
    if held_out is None:
        return {}
    net = FrozenNet(testing.definition, testing.state, testing.inputs, weights, plan.extensions)
    return evaluate(net, select(held_out, testing.columns), testing.batch_size)


def _caffemodel(training: Side, trained: Net) -> bytes:
    """Return the weights in a caffemodel of the net as it is written."""
    net = build_for_state(training.definition, training.state, input_shapes=training.shapes)
    net.share_with(trained)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.caffemodel")
        save_weights(net, path)
        return path.read_bytes()
