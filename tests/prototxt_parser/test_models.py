"""The shipped nets and solvers say what Caffe's say."""

import pytest

from prototxt_parser.files import find_model, list_models, read_net, read_solver, read_text
from prototxt_parser.proto import caffe_pb2, deepspark_pb2
from prototxt_parser.text import parse_text

NETS = (
    "alexnet",
    "caffenet",
    "cifar10_deepspark",
    "cifar10_full",
    "cifar10_full_sigmoid",
    "cifar10_full_sigmoid_bn",
    "cifar10_quick",
    "googlenet",
    "inception_v3",
    "lenet",
    "resnet101",
    "resnet110",
    "resnet20",
    "resnet50",
    "resnet56",
)

MNIST = ("examples/mnist/mnist_train_lmdb", "examples/mnist/mnist_test_lmdb")
CIFAR = ("examples/cifar10/cifar10_train_lmdb", "examples/cifar10/cifar10_test_lmdb")
PADDED_CIFAR = ("examples/cifar10/cifar10_train_pad4_lmdb", CIFAR[1])
IMAGENET = ("examples/imagenet/ilsvrc12_train_lmdb", "examples/imagenet/ilsvrc12_val_lmdb")

IMAGENET_320 = (
    "examples/imagenet/ilsvrc12_train_320_lmdb",
    "examples/imagenet/ilsvrc12_val_320_lmdb",
)

AUXILIARY = ("loss1/", "loss2/", "aux/")

# Sources and batch sizes of each net, for training and testing.
DATA = {
    "alexnet": (IMAGENET, (256, 50)),
    "caffenet": (IMAGENET, (256, 50)),
    "cifar10_deepspark": (CIFAR, (100, 100)),
    "cifar10_full": (CIFAR, (100, 100)),
    "cifar10_full_sigmoid": (CIFAR, (111, 1000)),
    "cifar10_full_sigmoid_bn": (CIFAR, (100, 1000)),
    "cifar10_quick": (CIFAR, (100, 100)),
    "googlenet": (IMAGENET, (32, 50)),
    "inception_v3": (IMAGENET_320, (32, 50)),
    "lenet": (MNIST, (64, 100)),
    "resnet101": (IMAGENET, (32, 50)),
    "resnet110": (PADDED_CIFAR, (128, 100)),
    "resnet20": (PADDED_CIFAR, (128, 100)),
    "resnet50": (IMAGENET, (32, 50)),
    "resnet56": (PADDED_CIFAR, (128, 100)),
}
IMAGENET_MEAN_FILE = 'mean_file: "data/ilsvrc12/imagenet_mean.binaryproto"'
IMAGENET_MEAN = "mean_value: 104 mean_value: 117 mean_value: 123"
CIFAR_MEAN = "mean_value: 125.307 mean_value: 122.95 mean_value: 113.865"
# The transformation; 'mirror' is of the training images.
TRANSFORMS = {
    "alexnet": f"crop_size: 227 {IMAGENET_MEAN_FILE}",
    "caffenet": f"crop_size: 227 {IMAGENET_MEAN_FILE}",
    "cifar10": 'mean_file: "examples/cifar10/mean.binaryproto"',
    "googlenet": f"crop_size: 224 {IMAGENET_MEAN}",
    "inception_v3": f"crop_size: 299 {IMAGENET_MEAN}",
    "lenet": "scale: 0.00390625",
    "resnet101": f"crop_size: 224 {IMAGENET_MEAN}",
    "resnet110": f"crop_size: 32 {CIFAR_MEAN}",
    "resnet20": f"crop_size: 32 {CIFAR_MEAN}",
    "resnet50": f"crop_size: 224 {IMAGENET_MEAN}",
    "resnet56": f"crop_size: 32 {CIFAR_MEAN}",
}


def layers_of(name: str, type_: str) -> list[caffe_pb2.LayerParameter]:
    """Return the layers of one type of a net."""
    return [layer for layer in read_net(f"{name}.prototxt").param.layer if layer.type == type_]


def specs(layer: caffe_pb2.LayerParameter) -> list[tuple[float, float]]:
    """Return (lr_mult, decay_mult) of each parameter that has settings."""
    return [(spec.lr_mult, spec.decay_mult) for spec in layer.param]


@pytest.mark.parametrize("name", list_models())
def test_files_begin_with_a_comment_and_are_tidy(name: str) -> None:
    text = read_text(find_model(name))
    assert text.startswith("# ")
    assert text.endswith("\n")
    assert all(line == line.rstrip() and len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("name", NETS)
def test_data_layers(name: str) -> None:
    train, test = layers_of(name, "Data")
    sources, batch_sizes = DATA[name]
    assert (train.data_param.source, test.data_param.source) == sources
    assert (train.data_param.batch_size, test.data_param.batch_size) == batch_sizes
    for layer, phase in ((train, caffe_pb2.TRAIN), (test, caffe_pb2.TEST)):
        assert [rule.phase for rule in layer.include] == [phase]
        assert layer.data_param.backend == caffe_pb2.DataParameter.LMDB
        assert list(layer.top) == ["data", "label"]
        text = TRANSFORMS[name.split("_")[0] if name.startswith("cifar10") else name]
        if "crop_size" in text:
            text += f" mirror: {str(phase == caffe_pb2.TRAIN).lower()}"
        transform = parse_text(text, caffe_pb2.TransformationParameter(), name)
        assert layer.transform_param == transform


@pytest.mark.parametrize("name", NETS)
def test_deploy_form_is_the_net_without_data_losses_and_training_settings(name: str) -> None:
    deploy = read_net(f"{name}_deploy.prototxt").param
    assert deploy.layer[0].type == "Input"
    assert (deploy.layer[-1].name, deploy.layer[-1].type) == ("prob", "Softmax")
    expected = []
    for layer in read_net(f"{name}.prototxt").param.layer:
        if layer.type in ("Data", "Accuracy", "SoftmaxWithLoss") or layer.name.startswith(
            AUXILIARY
        ):
            continue
        layer.ClearField("param")
        for settings in (layer.convolution_param, layer.inner_product_param):
            settings.ClearField("weight_filler")
            settings.ClearField("bias_filler")
        for field in ("convolution_param", "inner_product_param"):
            if not getattr(layer, field).ListFields():
                layer.ClearField(field)
        expected.append(layer)
    assert list(deploy.layer[1:-1]) == expected
    assert deploy.layer[-1].bottom[0] == expected[-1].top[0]


def test_learning_rates_and_fillers() -> None:
    for layer in (*layers_of("lenet", "Convolution"), *layers_of("cifar10_quick", "InnerProduct")):
        assert specs(layer) == [(1, 1), (2, 1)]
    for name in ("alexnet", "caffenet", "googlenet"):
        for layer in (*layers_of(name, "Convolution"), *layers_of(name, "InnerProduct")):
            assert specs(layer) == [(1, 1), (2, 0)]
    *first, last = layers_of("cifar10_full", "Convolution")
    assert [specs(layer) for layer in first] == [[(1, 1), (2, 1)]] * 2
    assert specs(last) == []
    (product,) = layers_of("cifar10_full", "InnerProduct")
    assert specs(product) == [(1, 250), (2, 0)]
    (product,) = layers_of("cifar10_full_sigmoid", "InnerProduct")
    assert specs(product) == [(1, 0), (2, 0)]
    (product,) = layers_of("cifar10_full_sigmoid_bn", "InnerProduct")
    assert specs(product) == [(1, 1), (1, 0)]
    fillers = [layer.convolution_param for layer in layers_of("cifar10_quick", "Convolution")]
    assert [param.weight_filler.std for param in fillers] == pytest.approx([0.0001, 0.01, 0.01])
    biases = {
        name: [
            layer.convolution_param.bias_filler.value for layer in layers_of(name, "Convolution")
        ]
        for name in ("alexnet", "caffenet")
    }
    assert biases["alexnet"] == pytest.approx([0, 0.1, 0, 0.1, 0.1])
    assert biases["caffenet"] == [0, 1, 0, 1, 1]


def test_batch_norms_keep_their_statistics_from_the_solver() -> None:
    layers = layers_of("cifar10_full_sigmoid_bn", "BatchNorm")
    assert [specs(layer) for layer in layers] == [[(0, 0)] * 3] * 3


def test_googlenet_has_three_heads() -> None:
    losses = layers_of("googlenet", "SoftmaxWithLoss")
    assert [layer.top[0] for layer in losses] == ["loss1/loss1", "loss2/loss2", "loss3/loss3"]
    assert [layer.loss_weight[0] for layer in losses] == pytest.approx([0.3, 0.3, 1])
    assert [layer.accuracy_param.top_k for layer in layers_of("googlenet", "Accuracy")] == [
        1,
        5,
    ] * 3
    ratios = [layer.dropout_param.dropout_ratio for layer in layers_of("googlenet", "Dropout")]
    assert ratios == pytest.approx([0.7, 0.7, 0.4])


def test_deepspark_settings() -> None:
    name = "cifar10_deepspark.conf.prototxt"
    settings = parse_text(read_text(find_model(name)), deepspark_pb2.DeepSparkParameter(), name)
    assert settings == deepspark_pb2.DeepSparkParameter(period=50, moving_rate=0.1)


def trunk(name: str) -> list[caffe_pb2.LayerParameter]:
    """Return what all nets of CaffeNet's family have in common: its layers before fc8."""
    layers = read_net(f"{name}.prototxt").param.layer
    names = [layer.name for layer in layers]
    return list(layers[names.index("conv1") : names.index("drop7") + 1])


@pytest.mark.parametrize("name", ["finetune_flickr_style", "finetune_pascal_detection"])
def test_fine_tuned_nets_are_caffenet_with_a_faster_last_layer(name: str) -> None:
    assert trunk(name) == trunk("caffenet")
    last = layers_of(name, "InnerProduct")[-1]
    classes = {"fc8_flickr": 20, "fc8_pascal": 21}
    assert last.inner_product_param.num_output == classes[last.name]
    assert specs(last) == [(10, 1), (20, 0)]


@pytest.mark.parametrize(
    "name", ["finetune_flickr_style_deploy", "imagenet_val", "rcnn_ilsvrc13_deploy"]
)
def test_deploy_forms_of_caffenet_differ_at_their_ends(name: str) -> None:
    assert trunk(name) == trunk("caffenet_deploy")
    last = layers_of(name, "InnerProduct")[-1]
    assert last.bottom == ["fc7"]
    assert len(layers_of(name, "Softmax")) == (name != "rcnn_ilsvrc13_deploy")


def test_flickr_style_reads_images() -> None:
    train, test = layers_of("finetune_flickr_style", "ImageData")
    for layer, phase, source in ((train, 0, "train"), (test, 1, "test")):
        assert [rule.phase for rule in layer.include] == [phase]
        text = f"crop_size: 227 {IMAGENET_MEAN_FILE} mirror: {str(phase == 0).lower()}"
        transform = parse_text(text, caffe_pb2.TransformationParameter(), source)
        assert layer.transform_param == transform
        settings = f'source: "data/flickr_style/{source}.txt" batch_size: 50'
        images = parse_text(
            f"{settings} new_height: 256 new_width: 256", caffe_pb2.ImageDataParameter(), source
        )
        assert layer.image_data_param == images


def test_pascal_detection_reads_windows() -> None:
    layers = layers_of("finetune_pascal_detection", "WindowData")
    assert [layer.include[0].phase for layer in layers] == [caffe_pb2.TRAIN, caffe_pb2.TEST]
    for layer, part in zip(layers, ("trainval", "test"), strict=True):
        text = f"crop_size: 227 {IMAGENET_MEAN_FILE} mirror: true"
        transform = parse_text(text, caffe_pb2.TransformationParameter(), part)
        assert layer.transform_param == transform
        folder = "examples/finetune_pascal_detection"
        windows = parse_text(
            f'source: "{folder}/window_file_2007_{part}.txt" batch_size: 128 fg_threshold: 0.5 '
            'bg_threshold: 0.5 fg_fraction: 0.25 context_pad: 16 crop_mode: "warp"',
            caffe_pb2.WindowDataParameter(),
            part,
        )
        assert layer.window_data_param == windows
    (loss,) = layers_of("finetune_pascal_detection", "SoftmaxWithLoss")
    assert not loss.top


def test_full_convolution_is_caffenet_in_another_shape() -> None:
    convolved = layers_of("caffenet_full_conv", "Convolution")[-3:]
    assert [layer.name for layer in convolved] == ["fc6-conv", "fc7-conv", "fc8-conv"]
    kernels = [list(layer.convolution_param.kernel_size) for layer in convolved]
    assert kernels == [[6], [1], [1]]
    for conv, full in zip(convolved, layers_of("caffenet", "InnerProduct"), strict=True):
        assert conv.convolution_param.num_output == full.inner_product_param.num_output


def test_consolidated_lenet_is_lenet_with_three_data_layers() -> None:
    net = read_solver("lenet_consolidated_solver.prototxt").net_param
    assert not net.layers
    expected = [layer for layer in read_net("lenet.prototxt").param.layer if layer.type != "Data"]
    assert [layer for layer in net.layer if layer.type != "Data"] == expected
    data = [layer for layer in net.layer if layer.type == "Data"]
    assert [
        (list(layer.include[0].stage), layer.data_param.source, layer.data_param.batch_size)
        for layer in data
    ] == [
        ([], MNIST[0], 64),
        (["test-on-train-set"], MNIST[0], 100),
        (["test-on-test-set"], MNIST[1], 100),
    ]
    assert [layer.include[0].phase for layer in data] == [0, 1, 1]


def test_siamese_towers_share_their_parameters() -> None:
    net = read_net("mnist_siamese.prototxt").param
    learned = {layer.name: layer for layer in net.layer if layer.param}
    for name in ("conv1", "conv2", "ip1", "ip2", "feat"):
        for layer in (learned[name], learned[f"{name}_p"]):
            assert [spec.name for spec in layer.param] == [f"{name}_w", f"{name}_b"]
            assert [spec.lr_mult for spec in layer.param] == [1, 2]
    assert {len(learned), len(net.layer)} == {10, 20}
    backends = [layer.data_param.backend for layer in layers_of("mnist_siamese", "Data")]
    assert backends == [caffe_pb2.DataParameter.LEVELDB] * 2


def test_autoencoder_fills_sparsely_and_decays_weights_only() -> None:
    layers = layers_of("mnist_autoencoder", "InnerProduct")
    outputs = [layer.inner_product_param.num_output for layer in layers]
    assert outputs == [1000, 500, 250, 30, 250, 500, 1000, 784]
    for layer in layers:
        assert specs(layer) == [(1, 1), (1, 0)]
        filler = layer.inner_product_param.weight_filler
        assert (filler.type, filler.std, filler.sparse) == ("gaussian", 1, 15)
