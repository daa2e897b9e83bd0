"""The shipped nets build in both phases, with the published numbers of parameters, and learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from models.generate import NETS as GENERATED
from models.generate import files
from prototxt_parser import build_net, find_model, list_models, read_net, read_solver
from prototxt_parser.data_spec import DataSpec
from prototxt_parser.definition import NetDefinition
from prototxt_parser.files import read_text
from prototxt_parser.net import Net
from prototxt_parser.proto import caffe_pb2
from solvers import Solver

# What data layers would give, with two items per batch: by net, or by its first letters.
INPUTS: dict[str, dict[str, tuple[int, ...]]] = {
    "alexnet": {"data": (2, 3, 227, 227), "label": (2,)},
    "caffenet": {"data": (2, 3, 227, 227), "label": (2,)},
    "cifar10": {"data": (2, 3, 32, 32), "label": (2,)},
    "finetune": {"data": (2, 3, 227, 227), "label": (2,)},
    "googlenet": {"data": (2, 3, 224, 224), "label": (2,)},
    "imagenet_val": {"data": (2, 3, 227, 227), "label": (2,)},
    "inception_v3": {"data": (2, 3, 299, 299), "label": (2,)},
    "lenet": {"data": (2, 1, 28, 28), "label": (2,)},
    "logreg": {"data": (10, 4), "label": (10,)},
    "mnist_autoencoder": {"data": (2, 1, 28, 28)},
    "mnist_siamese": {"pair_data": (2, 2, 28, 28), "sim": (2,)},
    "resnet110": {"data": (2, 3, 32, 32), "label": (2,)},
    "resnet20": {"data": (2, 3, 32, 32), "label": (2,)},
    "resnet56": {"data": (2, 3, 32, 32), "label": (2,)},
    "resnet": {"data": (2, 3, 224, 224), "label": (2,)},
}

# Learned numbers, and values that BatchNorm keeps. Shared ones count once.
PARAMETERS = {
    "alexnet": (60_965_224, 0),
    "caffenet": (60_965_224, 0),
    "caffenet_full_conv": (60_965_224, 0),
    "cifar10_deepspark": (849_674, 0),
    "cifar10_full": (89_578, 0),
    "cifar10_full_sigmoid": (89_578, 0),
    "cifar10_full_sigmoid_bn": (89_450, 259),
    "cifar10_quick": (145_578, 0),
    "finetune_flickr_style": (60_965_224 - 4_097 * 980, 0),
    "finetune_pascal_detection": (60_965_224 - 4_097 * 979, 0),
    "googlenet": (13_378_280, 0),
    "googlenet_deploy": (6_998_552, 0),
    "imagenet_val": (60_965_224, 0),
    "inception_v3": (27_161_264, 36_320),
    "inception_v3_deploy": (23_834_568, 34_526),
    "lenet": (431_080, 0),
    "lenet_auto_test": (431_080, 0),
    "lenet_auto_train": (431_080, 0),
    "logreg": (10, 0),
    "logreg_auto_test": (10, 0),
    "logreg_auto_train": (10, 0),
    "logreg_nonlinear": (282, 0),
    "logreg_nonlinear_auto_test": (282, 0),
    "logreg_nonlinear_auto_train": (282, 0),
    "mnist_autoencoder": (2_837_314, 0),
    "mnist_siamese": (431_102, 0),
    "net_surgery_conv": (78, 0),
    "rcnn_ilsvrc13_deploy": (57_687_624, 0),
    "resnet101": (44_549_160, 105_448),
    "resnet110": (1_727_962, 8_205),
    "resnet20": (269_722, 1_395),
    "resnet50": (25_557_032, 53_173),
    "resnet56": (853_018, 4_119),
}
# Nets for which building needs leave to run code; see test_linear_regression.
NEEDS_LEAVE = {"linreg"}
STAGES = {"mnist_autoencoder": "test-on-test"}

# Blobs at the end of a stage.
STAGE_ENDS = {
    "inception_v3": {
        "conv3/pool": (64, 73, 73),
        "conv5/pool": (192, 35, 35),
        "mixed_5b/output": (256, 35, 35),
        "mixed_5d/output": (288, 35, 35),
        "mixed_6a/output": (768, 17, 17),
        "mixed_6e/output": (768, 17, 17),
        "mixed_7a/output": (1280, 8, 8),
        "mixed_7c/output": (2048, 8, 8),
        "pool": (2048, 1, 1),
    },
    "resnet20": {
        "stage1_block3": (16, 32, 32),
        "stage2_block3": (32, 16, 16),
        "stage3_block3": (64, 8, 8),
    },
    "resnet110": {
        "stage1_block18": (16, 32, 32),
        "stage2_block18": (32, 16, 16),
        "stage3_block18": (64, 8, 8),
    },
    "resnet50": {
        "conv1": (64, 112, 112),
        "res2c": (256, 56, 56),
        "res3d": (512, 28, 28),
        "res4f": (1024, 14, 14),
        "res5c": (2048, 7, 7),
    },
    "resnet101": {
        "pool1": (64, 56, 56),
        "res2c": (256, 56, 56),
        "res3b3": (512, 28, 28),
        "res4b22": (1024, 14, 14),
        "res5c": (2048, 7, 7),
    },
}

# Images, their size, and iterations of a run that lowers the loss; the rate, for so few images.
RUNS = {
    "inception_v3": (4, 107, 12, 0.001),
    "resnet20": (8, 16, 8, 0.01),
    "resnet56": (8, 16, 8, 0.01),
    "resnet110": (8, 16, 8, 0.01),
    "resnet50": (4, 64, 6, 0.01),
    "resnet101": (4, 64, 6, 0.01),
}


def input_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes for the longest entry that the name begins with."""
    return INPUTS[max((key for key in INPUTS if name.startswith(key)), key=len)]


def build(name: str, phase: str) -> Net:
    """Build a shipped net as its solver would."""
    has_inputs = name.endswith(("_deploy", "_conv"))
    stages = [STAGES[name]] if name in STAGES and phase == "TEST" else []
    shapes = None if has_inputs else input_shapes(name)
    return build_net(
        read_net(f"{name}.prototxt"), phase, stages=stages, input_shapes=shapes, seed=1
    )


def sizes(net: Net) -> tuple[int, int]:
    """Return how many numbers are learned, and how many are statistics."""
    counts = {True: 0, False: 0}
    for segment in net.flat.segments:
        counts[segment.is_statistic] += segment.size
    return counts[False], counts[True]


def test_every_net_has_its_count() -> None:
    nets = {name.removesuffix(".prototxt") for name in list_models() if "_solver" not in name} - {
        "cifar10_deepspark.conf"
    }
    deployed = {f"{name}_deploy" for name in PARAMETERS} & nets
    assert nets == {*PARAMETERS, *deployed, *NEEDS_LEAVE}


@pytest.mark.parametrize("name", PARAMETERS)
def test_builds_in_both_phases_with_the_published_count(name: str) -> None:
    for phase in ("TRAIN", "TEST"):
        net = build(name, phase)
        assert sizes(net) == PARAMETERS[name]
        losses = [weight for step in net.steps for weight in step.loss_weights if weight]
        assert bool(losses) != name.endswith(("_deploy", "_conv"))


@pytest.mark.parametrize(
    "name", [name for name in list_models() if name.endswith("_deploy.prototxt")]
)
def test_deploy_form_has_the_count_of_its_net(name: str) -> None:
    name = name.removesuffix(".prototxt")
    expected = PARAMETERS.get(name) or PARAMETERS[name.removesuffix("_deploy")]
    assert sizes(build(name, "TEST")) == expected


@pytest.mark.parametrize("name", STAGE_ENDS)
def test_sizes_are_those_of_the_paper(name: str) -> None:
    shapes = build(name, "TRAIN").blob_shapes
    assert {blob: shapes[blob][1:] for blob in STAGE_ENDS[name]} == STAGE_ENDS[name]


def test_counts_are_the_papers() -> None:
    """He et al. 2015, table 6: 0.27M, 0.85M, 1.7M; convolutions, classifier, scales and shifts."""
    for blocks, name in ((3, "resnet20"), (9, "resnet56"), (18, "resnet110")):
        widths = (16, 32, 64)
        weights, channels = 9 * 3 * 16 + 64 * 10 + 10, 16
        for before, width in zip((16, 16, 32), widths, strict=True):
            weights += 9 * before * width + (2 * blocks - 1) * 9 * width * width
            channels += 2 * blocks * width
        normalisations = 6 * blocks + 1
        assert PARAMETERS[name] == (weights + 2 * channels, 2 * channels + normalisations)
    rounded = [f"{PARAMETERS[f'resnet{depth}'][0] / 1e6:.2g}" for depth in (20, 56, 110)]
    assert rounded == ["0.27", "0.85", "1.7"]


@pytest.mark.parametrize("name", GENERATED)
def test_files_are_what_the_generator_writes(name: str) -> None:
    for file, text in files(name).items():
        assert read_text(find_model(file)) == text


class OneBatch:
    """The same few images, again and again."""

    def __init__(self, batch: Mapping[str, Tensor]) -> None:
        self._batch = batch
        self.shapes = {name: tuple(value.shape) for name, value in batch.items()}

    def next(self) -> Mapping[str, Tensor]:
        return self._batch

    def skip(self, batches: int) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


def for_small_images(name: str) -> NetDefinition:
    """Return a net; Inception-v3 without its auxiliary head, which needs the full size."""
    net = caffe_pb2.NetParameter(name=name)
    layers = read_net(f"{name}.prototxt").param.layer
    net.layer.extend(layer for layer in layers if not layer.name.startswith("aux/"))
    return NetDefinition(net)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_short_run_lowers_the_loss(name: str) -> None:
    count, size, iterations, rate = RUNS[name]
    images = 60 * torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))
    batch = {"data": images, "label": torch.arange(count).float()}
    param = read_solver(f"{name}_solver.prototxt")
    for field in ("net", "snapshot", "iter_size", "average_loss", "display"):
        param.ClearField(field)
    param.base_lr = rate

    def open_feed(specs: Sequence[DataSpec]) -> OneBatch:
        assert len(specs) == 1
        return OneBatch(batch)

    solver = Solver(param, open_feed, net=for_small_images(name), seed=1, with_test_nets=False)
    losses = []
    for _ in range(iterations):
        solver.step(1)
        losses.append(solver.smoothed_loss)
    assert losses[-1] < 0.75 * losses[0], losses
