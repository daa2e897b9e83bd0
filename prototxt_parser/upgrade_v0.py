"""V0 layers, the first form, made V1: one message of settings becomes one message per type."""

from __future__ import annotations

from google.protobuf.message import Message

from prototxt_parser.errors import PrototxtError
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.upgrade_log import UpgradeLog

_V1Type = caffe_pb2.V1LayerParameter.LayerType

_CAN_CLOBBER = 57  # a field of V0 that had no effect any more when the schema was first published


def _into(param: str, **fields: str) -> dict[str, str]:
    return {old: f"{param}.{new}" for old, new in fields.items()}


# Where settings of layers of every type go.
_COMMON = {
    "name": "name",
    "blobs": "blobs",
    "blobs_lr": "blobs_lr",
    "weight_decay": "weight_decay",
    **_into(
        "transform_param",
        scale="scale",
        meanfile="mean_file",
        cropsize="crop_size",
        mirror="mirror",
    ),
}

_WEIGHTS = {
    "num_output": "num_output",
    "biasterm": "bias_term",
    "weight_filler": "weight_filler",
    "bias_filler": "bias_filler",
}
_WINDOW = {"pad": "pad", "kernelsize": "kernel_size", "stride": "stride"}
_SOURCE = {"source": "source", "batchsize": "batch_size"}

# V0 type: V1 type, and where the settings go that only this type has.
_TYPES: dict[str, tuple[_V1Type, dict[str, str]]] = {
    "accuracy": (_V1Type.ACCURACY, {}),
    "bnll": (_V1Type.BNLL, {}),
    "concat": (_V1Type.CONCAT, _into("concat_param", concat_dim="concat_dim")),
    "conv": (
        _V1Type.CONVOLUTION,
        _into("convolution_param", **_WEIGHTS, **_WINDOW, group="group"),
    ),
    "data": (_V1Type.DATA, _into("data_param", **_SOURCE, rand_skip="rand_skip")),
    "dropout": (_V1Type.DROPOUT, _into("dropout_param", dropout_ratio="dropout_ratio")),
    "euclidean_loss": (_V1Type.EUCLIDEAN_LOSS, {}),
    "flatten": (_V1Type.FLATTEN, {}),
    "hdf5_data": (_V1Type.HDF5_DATA, _into("hdf5_data_param", **_SOURCE)),
    "hdf5_output": (_V1Type.HDF5_OUTPUT, {"hdf5_output_param": "hdf5_output_param"}),
    "im2col": (_V1Type.IM2COL, {}),
    "images": (
        _V1Type.IMAGE_DATA,
        _into(
            "image_data_param",
            **_SOURCE,
            rand_skip="rand_skip",
            shuffle_images="shuffle",
            new_height="new_height",
            new_width="new_width",
        ),
    ),
    "infogain_loss": (_V1Type.INFOGAIN_LOSS, _into("infogain_loss_param", source="source")),
    "innerproduct": (_V1Type.INNER_PRODUCT, _into("inner_product_param", **_WEIGHTS)),
    "lrn": (
        _V1Type.LRN,
        _into("lrn_param", local_size="local_size", alpha="alpha", beta="beta", k="k"),
    ),
    "multinomial_logistic_loss": (_V1Type.MULTINOMIAL_LOGISTIC_LOSS, {}),
    "pool": (_V1Type.POOLING, _into("pooling_param", **_WINDOW, pool="pool")),
    "relu": (_V1Type.RELU, {}),
    "sigmoid": (_V1Type.SIGMOID, {}),
    "softmax": (_V1Type.SOFTMAX, {}),
    "softmax_loss": (_V1Type.SOFTMAX_LOSS, {}),
    "split": (_V1Type.SPLIT, {}),
    "tanh": (_V1Type.TANH, {}),
    "window_data": (
        _V1Type.WINDOW_DATA,
        _into(
            "window_data_param",
            **_SOURCE,
            det_fg_threshold="fg_threshold",
            det_bg_threshold="bg_threshold",
            det_fg_fraction="fg_fraction",
            det_context_pad="context_pad",
            det_crop_mode="crop_mode",
        ),
    ),
}


def is_v0(net: caffe_pb2.NetParameter) -> bool:
    """Tell whether a net has V0 layers."""
    return any(layer.HasField("layer") for layer in net.layers)


def upgrade_v0(net: caffe_pb2.NetParameter, log: UpgradeLog) -> list[int]:
    """Make V0 layers V1 layers, in place.

    Returns:
        Indices of the layers that stay: a padding layer becomes a setting of the next one.

    Raises:
        PrototxtError: A type is unknown, or a padding layer is not followed by what can pad.

    Source: caffe/src/caffe/util/upgrade_proto.cpp, UpgradeV0Net, UpgradeV0PaddingLayers.
    """
    _absorb_padding(net, log.source)
    kept = [index for index, layer in enumerate(net.layers) if layer.layer.type != "padding"]
    layers = [_upgraded(net.layers[index], log) for index in kept]
    del net.layers[:]
    net.layers.extend(layers)
    return kept


def _absorb_padding(net: caffe_pb2.NetParameter, source: str) -> None:
    """Give the pad of each padding layer to the layers that read its top."""
    producers: dict[str, caffe_pb2.V1LayerParameter] = {}
    for layer in net.layers:
        for bottom in list(layer.bottom):
            padding = producers.get(bottom)
            if padding is None or padding.layer.type != "padding":
                continue
            if layer.layer.type not in ("conv", "pool") or len(layer.bottom) != 1:
                raise PrototxtError(
                    f'{source}: layer "{layer.layer.name}" ({layer.layer.type}): reads padding '
                    f'layer "{padding.layer.name}", which only a conv or pool layer with one '
                    f"bottom can"
                )
            layer.layer.pad = padding.layer.pad
            layer.bottom[0] = padding.bottom[0]
        if layer.layer.type == "padding" and (len(layer.bottom), len(layer.top)) != (1, 1):
            raise PrototxtError(
                f'{source}: padding layer "{layer.layer.name}": takes 1 bottom and 1 top; '
                f"received {len(layer.bottom)} and {len(layer.top)}"
            )
        producers.update(dict.fromkeys(layer.top, layer))


def _upgraded(old: caffe_pb2.V1LayerParameter, log: UpgradeLog) -> caffe_pb2.V1LayerParameter:
    if not old.HasField("layer"):
        return old
    settings = old.layer
    log.lose_unknown(old, settings.name)
    log.lose_unknown(settings, settings.name, {_CAN_CLOBBER})
    layer = caffe_pb2.V1LayerParameter(bottom=old.bottom, top=old.top)
    places = dict(_COMMON)
    if settings.HasField("type"):
        if settings.type not in _TYPES:
            raise PrototxtError(
                f'{log.source}: layer "{settings.name}": Unknown layer name: {settings.type} '
                f"(known names: {', '.join(_TYPES)}, padding)"
            )
        layer.type, own = _TYPES[settings.type]
        places.update(own)
    for field, value in settings.ListFields():
        if field.name in places:
            try:
                _put(layer, places[field.name], value)
            except ValueError as error:
                raise PrototxtError(
                    f'{log.source}: layer "{settings.name}": {field.name} must be >= 0; '
                    f"received {value}"
                ) from error
        elif field.name != "type":
            log.problem(
                f'layer "{settings.name}": unknown parameter {field.name} for layer type '
                f"{settings.type} is ignored"
            )
    return layer


def _put(layer: caffe_pb2.V1LayerParameter, place: str, value: object) -> None:
    """Write a value to a field of the layer or of one of its messages."""
    owner: Message = layer
    *path, field = place.split(".")
    for name in path:
        owner = getattr(owner, name)
    current = getattr(owner, field)
    if not hasattr(current, "MergeFrom"):
        setattr(owner, field, value)
    elif hasattr(value, "MergeFrom"):
        current.MergeFrom(value)
    else:
        current.append(value)
