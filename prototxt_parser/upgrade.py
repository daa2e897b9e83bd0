"""Older forms of nets and solvers, made current.

A V0 net is first made V1 (see `upgrade_v0`), then its deprecated transformation fields move, then
V1 layers become current ones, then `input` fields an Input layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prototxt_parser import upgrade_log
from prototxt_parser.errors import PrototxtError
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.upgrade_log import UpgradeLog
from prototxt_parser.upgrade_v0 import is_v0, upgrade_v0

# What the type numbers of V1 layers are called now.
_V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}

# Lists of V1 layers that run parallel to their weights, and the field of `param` that each fills.
_V1_PARAM_FIELDS = {
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}

_V1_DATA_PARAMS = {
    caffe_pb2.V1LayerParameter.DATA: "data_param",
    caffe_pb2.V1LayerParameter.IMAGE_DATA: "image_data_param",
    caffe_pb2.V1LayerParameter.WINDOW_DATA: "window_data_param",
}

_SOLVER_TYPES = {
    caffe_pb2.SolverParameter.SGD: "SGD",
    caffe_pb2.SolverParameter.NESTEROV: "Nesterov",
    caffe_pb2.SolverParameter.ADAGRAD: "AdaGrad",
    caffe_pb2.SolverParameter.RMSPROP: "RMSProp",
    caffe_pb2.SolverParameter.ADADELTA: "AdaDelta",
    caffe_pb2.SolverParameter.ADAM: "Adam",
}


@dataclass(frozen=True)
class Upgrade:
    """A net made current.

    Attributes:
        net: The current form.
        origins: For each of its layers the index in the original, None for a new layer.
        is_needed: Whether the original had an older form.
        is_complete: Whether everything that it said could be carried over.
    """

    net: caffe_pb2.NetParameter
    origins: tuple[int | None, ...]
    is_needed: bool
    is_complete: bool


def upgrade_net(param: caffe_pb2.NetParameter, source: str = "net") -> caffe_pb2.NetParameter:
    """Return a net in its current form; the argument stays as it is.

    Args:
        param: A net in any form, with or without weights.
        source: What errors call it.

    Raises:
        PrototxtError: It mixes forms, or holds what has no current form.

    Source: caffe/src/caffe/util/upgrade_proto.cpp, UpgradeNetAsNeeded.
    """
    return trace_upgrade(param, source).net


def trace_upgrade(param: caffe_pb2.NetParameter, source: str) -> Upgrade:
    """Do what `upgrade_net` does, and tell what was done and where each layer comes from.

    Every step is logged in Caffe's words. Fields that Caffe's schema lacks are kept, but for those
    of old layers, where their numbers meant something else; those are logged.
    """
    log = UpgradeLog(source)
    net = caffe_pb2.NetParameter()
    net.CopyFrom(param)
    if net.layers and net.layer:
        raise PrototxtError(
            f'{source}: refusing to upgrade an inconsistent net: it has both old "layers" and new '
            f'"layer" blocks; write all of them as "layer"'
        )
    origins: list[int | None] = list(range(len(net.layers) or len(net.layer)))
    if is_v0(net):
        with log.step(upgrade_log.V0):
            origins = list(upgrade_v0(net, log))
    if _movable_transformations(net):
        with log.step(upgrade_log.TRANSFORMATIONS):
            _move_transformations(net)
    if net.layers:
        with log.step(upgrade_log.V1):
            _upgrade_v1(net, log)
    if net.input:
        with log.step(upgrade_log.INPUTS):
            if _upgrade_inputs(net, source):
                origins.insert(0, None)
    if _old_batch_norms(net):
        with log.step(upgrade_log.BATCH_NORMS):
            _fix_batch_norms(net)
    return Upgrade(net, tuple(origins), bool(log.steps), not log.problems)


def upgrade_solver(
    param: caffe_pb2.SolverParameter, source: str = "solver"
) -> caffe_pb2.SolverParameter:
    """Return a solver in its current form; the argument stays as it is.

    Differs from Caffe: nets inside the solver are upgraded too; Caffe takes those as they are, so
    that old ones come out empty.

    Args:
        param: A solver.
        source: What errors call it.

    Raises:
        PrototxtError: It has both `type` and `solver_type`, or a net that cannot be upgraded.

    Source: caffe/src/caffe/util/upgrade_proto.cpp, UpgradeSolverAsNeeded.
    """
    solver = caffe_pb2.SolverParameter()
    solver.CopyFrom(param)
    if solver.HasField("solver_type"):
        if solver.HasField("type"):
            raise PrototxtError(
                f"{source}: type and solver_type (its old form) cannot be both specified in solver "
                f"proto text; remove solver_type"
            )
        with UpgradeLog(source).step(upgrade_log.SOLVER_TYPE):
            solver.type = _SOLVER_TYPES[solver.solver_type]
            solver.ClearField("solver_type")
    if solver.HasField("net_param"):
        solver.net_param.CopyFrom(upgrade_net(solver.net_param, f"{source}: net_param"))
    if solver.HasField("train_net_param"):
        train_net = upgrade_net(solver.train_net_param, f"{source}: train_net_param")
        solver.train_net_param.CopyFrom(train_net)
    for net in solver.test_net_param:
        net.CopyFrom(upgrade_net(net, f"{source}: test_net_param"))
    return solver


def _movable_transformations(
    net: caffe_pb2.NetParameter,
) -> list[tuple[caffe_pb2.V1LayerParameter, str, str]]:
    """Return layer, message and field of each transformation setting in its old place."""
    return [
        (layer, _V1_DATA_PARAMS[layer.type], field)
        for layer in net.layers
        if layer.type in _V1_DATA_PARAMS
        for field in ("scale", "mean_file", "crop_size", "mirror")
        if getattr(layer, _V1_DATA_PARAMS[layer.type]).HasField(field)
    ]


def _move_transformations(net: caffe_pb2.NetParameter) -> None:
    for layer, name, field in _movable_transformations(net):
        data = getattr(layer, name)
        setattr(layer.transform_param, field, getattr(data, field))
        data.ClearField(field)


def _upgrade_v1(net: caffe_pb2.NetParameter, log: UpgradeLog) -> None:
    for old in net.layers:
        log.lose_unknown(old, old.name)
        layer = net.layer.add()
        for field, value in old.ListFields():
            if field.name == "name":
                layer.name = value
            elif field.name == "type":
                layer.type = _V1_TYPES[caffe_pb2.V1LayerParameter.LayerType.Name(value)]
            elif field.name in _V1_PARAM_FIELDS:
                _fill_specs(layer, _V1_PARAM_FIELDS[field.name], value)
            else:
                getattr(layer, field.name).MergeFrom(value)
    net.ClearField("layers")


def _fill_specs(
    layer: caffe_pb2.LayerParameter, field: str, values: Iterable[str | int | float]
) -> None:
    for index, value in enumerate(values):
        if index == len(layer.param):
            layer.param.add()
        setattr(layer.param[index], field, value)


def _upgrade_inputs(net: caffe_pb2.NetParameter, source: str) -> bool:
    """Turn `input` fields into an Input layer in front; tell whether there is one now."""
    shaped = bool(net.input_shape or net.input_dim)
    if shaped:
        shapes = [list(shape.dim) for shape in net.input_shape] or [
            list(net.input_dim[4 * index : 4 * index + 4])
            for index in range(len(net.input_dim) // 4)
        ]
        if len(shapes) < len(net.input):
            raise PrototxtError(
                f"{source}: each of {len(net.input)} inputs needs an input_shape or 4 input_dim; "
                f"received {len(net.input_shape)} and {len(net.input_dim)}"
            )
        layers = list(net.layer)
        del net.layer[:]
        first = net.layer.add(name="input", type="Input", top=net.input)
        for dim in shapes[: len(net.input)]:
            first.input_param.shape.add(dim=dim)
        net.layer.extend(layers)
    for field in ("input", "input_shape", "input_dim"):
        net.ClearField(field)
    return shaped


def _old_batch_norms(net: caffe_pb2.NetParameter) -> list[caffe_pb2.LayerParameter]:
    return [layer for layer in net.layer if layer.type == "BatchNorm" and len(layer.param) == 3]


def _fix_batch_norms(net: caffe_pb2.NetParameter) -> None:
    """Keep solvers from training the three statistics of BatchNorm, as old nets had to ask."""
    for layer in _old_batch_norms(net):
        for spec in layer.param:
            spec.lr_mult = spec.decay_mult = 0
