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
    "lenet",
)

MNIST = ("examples/mnist/mnist_train_lmdb", "examples/mnist/mnist_test_lmdb")
CIFAR = ("examples/cifar10/cifar10_train_lmdb", "examples/cifar10/cifar10_test_lmdb")
IMAGENET = ("examples/imagenet/ilsvrc12_train_lmdb", "examples/imagenet/ilsvrc12_val_lmdb")

AUXILIARY = ("loss1/", "loss2/")

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
    "lenet": (MNIST, (64, 100)),
}

CIFAR_RUN = "test_iter: 100 test_interval: 500 momentum: 0.9 display: 100 "
QUICK = 'net: "cifar10_quick.prototxt" weight_decay: 0.004 ' + CIFAR_RUN
FULL = """net: "cifar10_full.prototxt" test_iter: 100 test_interval: 1000 momentum: 0.9 display: 200
    weight_decay: 0.004 lr_policy: "fixed" snapshot_format: HDF5
    snapshot_prefix: "examples/cifar10/cifar10_full" """
SIGMOID = """test_iter: 10 test_interval: 1000 base_lr: 0.001 momentum: 0.9 display: 100
    lr_policy: "step" gamma: 1 stepsize: 5000 max_iter: 60000 snapshot: 10000 """
IMAGENET_RUN = """test_iter: 1000 test_interval: 1000 base_lr: 0.01 momentum: 0.9
    weight_decay: 0.0005 lr_policy: "step" gamma: 0.1 stepsize: 100000 display: 20
    max_iter: 450000 snapshot: 10000 """
GOOGLENET = """net: "googlenet.prototxt" test_iter: 1000 test_interval: 4000
    test_initialization: false base_lr: 0.01 momentum: 0.9 weight_decay: 0.0002 display: 40
    average_loss: 40 snapshot: 40000 """
SOLVERS = {
    "lenet_solver": """net: "lenet.prototxt" test_iter: 100 test_interval: 500 base_lr: 0.01
        momentum: 0.9 weight_decay: 0.0005 lr_policy: "inv" gamma: 0.0001 power: 0.75 display: 100
        max_iter: 10000 snapshot: 5000 snapshot_prefix: "examples/mnist/lenet" """,
    "cifar10_quick_solver": QUICK
    + """base_lr: 0.001 lr_policy: "fixed" max_iter: 4000 snapshot: 4000
        snapshot_prefix: "examples/cifar10/cifar10_quick" """,
    "cifar10_quick_solver_lr1": QUICK
    + """base_lr: 0.0001 lr_policy: "fixed" max_iter: 5000 snapshot: 5000 snapshot_format: HDF5
        snapshot_prefix: "examples/cifar10/cifar10_quick" """,
    "cifar10_quick_short_solver": QUICK
    + """base_lr: 0.001 lr_policy: "multistep" gamma: 0.1 stepvalue: 2000 max_iter: 2500
        snapshot: 2500 snapshot_prefix: "examples/cifar10/cifar10_quick_short" """,
    "cifar10_full_solver": FULL + "base_lr: 0.001 max_iter: 60000 snapshot: 10000",
    "cifar10_full_solver_lr1": FULL + "base_lr: 0.0001 max_iter: 65000 snapshot: 5000",
    "cifar10_full_solver_lr2": FULL + "base_lr: 0.00001 max_iter: 70000 snapshot: 5000",
    "cifar10_full_sigmoid_solver": SIGMOID
    + """net: "cifar10_full_sigmoid.prototxt"
        snapshot_prefix: "examples/cifar10/cifar10_full_sigmoid" """,
    "cifar10_full_sigmoid_bn_solver": SIGMOID
    + """net: "cifar10_full_sigmoid_bn.prototxt"
        snapshot_prefix: "examples/cifar10/cifar10_full_sigmoid_bn" """,
    "cifar10_deepspark_solver": CIFAR_RUN
    + """net: "cifar10_deepspark.prototxt" base_lr: 0.001 weight_decay: 0.004 lr_policy: "fixed"
        max_iter: 10000 snapshot: 10000 snapshot_prefix: "examples/cifar10/cifar10_deepspark" """,
    "alexnet_solver": IMAGENET_RUN
    + """net: "alexnet.prototxt" snapshot_prefix: "models/bvlc_alexnet/caffe_alexnet_train" """,
    "caffenet_solver": IMAGENET_RUN
    + """net: "caffenet.prototxt"
        snapshot_prefix: "models/bvlc_reference_caffenet/caffenet_train" """,
    "googlenet_solver": GOOGLENET
    + """lr_policy: "step" gamma: 0.96 stepsize: 320000 max_iter: 10000000
        snapshot_prefix: "models/bvlc_googlenet/bvlc_googlenet" """,
    "googlenet_quick_solver": GOOGLENET
    + """lr_policy: "poly" power: 0.5 max_iter: 2400000
        snapshot_prefix: "models/bvlc_googlenet/bvlc_googlenet_quick" """,
}


def layers_of(name: str, type_: str) -> list[caffe_pb2.LayerParameter]:
    """Return the layers of one type of a net."""
    return [layer for layer in read_net(f"{name}.prototxt").param.layer if layer.type == type_]


def specs(layer: caffe_pb2.LayerParameter) -> list[tuple[float, float]]:
    """Return (lr_mult, decay_mult) of each parameter that has settings."""
    return [(spec.lr_mult, spec.decay_mult) for spec in layer.param]


def test_nothing_is_missing_and_nothing_is_left_over() -> None:
    names = {*NETS, *(f"{name}_deploy" for name in NETS), *SOLVERS, "cifar10_deepspark.conf"}
    assert list_models() == sorted(f"{name}.prototxt" for name in names)


@pytest.mark.parametrize("name", list_models())
def test_files_begin_with_a_comment_and_are_tidy(name: str) -> None:
    text = read_text(find_model(name))
    assert text.startswith("# ")
    assert text.endswith("\n")
    assert all(line == line.rstrip() and len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers(name: str) -> None:
    expected = parse_text(SOLVERS[name], caffe_pb2.SolverParameter(), name)
    solver = read_solver(f"{name}.prototxt")
    assert solver == expected
    assert solver.net in list_models()


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
        if name == "lenet":
            assert layer.transform_param.scale == 1 / 256
        elif name == "googlenet":
            assert list(layer.transform_param.mean_value) == [104, 117, 123]
            assert layer.transform_param.crop_size == 224
        elif name.startswith("cifar10"):
            assert layer.transform_param.mean_file == "examples/cifar10/mean.binaryproto"
        else:
            mean = "data/ilsvrc12/imagenet_mean.binaryproto"
            assert layer.transform_param.mean_file == mean
            assert layer.transform_param.crop_size == 227
        mirrors = phase == caffe_pb2.TRAIN and sources == IMAGENET
        assert layer.transform_param.mirror == mirrors


@pytest.mark.parametrize("name", NETS)
def test_deploy_form_is_the_net_without_data_losses_and_training_settings(name: str) -> None:
    deploy = read_net(f"{name}_deploy.prototxt").param
    assert deploy.layer[0].type == "Input"
    assert (deploy.layer[-1].name, deploy.layer[-1].type) == ("prob", "Softmax")
    expected = []
    for layer in read_net(f"{name}.prototxt").param.layer:
        if layer.type in ("Data", "Accuracy", "SoftmaxWithLoss") or layer.name[:6] in AUXILIARY:
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
