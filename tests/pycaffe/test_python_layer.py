"""Layers written in Python: permission, both kinds of nets, their parameters, what they raise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pycaffe as caffe
from prototxt_parser import Net, PrototxtError, build_net
from prototxt_parser.proto import caffe_pb2
from prototxt_parser.text import parse_text

LAYERS = """
import caffe
import numpy as np

class Affine(caffe.Layer):
    def setup(self, bottom, top):
        self.blobs.add_blob(1, bottom[0].shape[1])
        self.blobs.add_blob()
        self.blobs[0].data[...] = np.arange(bottom[0].shape[1]) + 1
        self.blobs[1].data[...] = float(self.param_str or 0)
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data * self.blobs[0].data + self.blobs[1].data
    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum(0, keepdims=True)
        self.blobs[1].diff[...] += top[0].diff.sum()
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff * self.blobs[0].data

class Halves(caffe.Layer):
    def setup(self, bottom, top):
        assert len(top) == 2
    def reshape(self, bottom, top):
        n, c = bottom[0].shape
        top[0].reshape(n, c // 2)
        top[1].reshape(n, c - c // 2)
    def forward(self, bottom, top):
        at = top[0].channels
        top[0].data[...], top[1].data[...] = bottom[0].data[:, :at], bottom[0].data[:, at:]
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = np.concatenate([top[0].diff, top[1].diff], 1)

class Counter(caffe.Layer):
    def setup(self, bottom, top):
        self.passes = 0
    def reshape(self, bottom, top):
        top[0].reshape(3, 4)
    def forward(self, bottom, top):
        self.passes += 1
        top[0].data[...] = self.passes * np.arange(12).reshape(3, 4)
    def backward(self, top, propagate_down, bottom):
        pass

class Phase(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape()
    def forward(self, bottom, top):
        top[0].data[()] = self.phase

class Failing(caffe.Layer):
    def setup(self, bottom, top):
        if "setup" in self.param_str:
            raise RuntimeError("no good in setup")
        if "exit" in self.param_str:
            raise SystemExit(0)
    def reshape(self, bottom, top):
        top[0].reshape(1)
    def forward(self, bottom, top):
        raise KeyError("no good in forward")

class Stranger:
    pass
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("layers")
    (folder / "layers_under_test.py").write_text(LAYERS)
    sys.path.append(str(folder))
    caffe.allow_python_layers("layers_under_test")
    return "layers_under_test"


def layer(name: str, kind: str, wires: str, settings: str = "") -> str:
    return f"""layer {{ name: "{name}" type: "Python" {wires} {settings}
      python_param {{ module: "layers_under_test" layer: "{kind}" }} }}"""


INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 4 } } }'
CHAIN = "\n".join(
    [
        "force_backward: true",
        INPUT,
        """layer { name: "a" type: "Python" bottom: "x" top: "a"
          python_param { module: "layers_under_test" layer: "Affine" param_str: "0.5" } }""",
        layer("h", "Halves", 'bottom: "a" top: "l" top: "r"'),
        """layer { name: "sum" type: "Reduction" bottom: "r" top: "sum" loss_weight: 2
          reduction_param { operation: SUMSQ } }
        layer { name: "hush" type: "Silence" bottom: "l" }""",
    ]
)
X = np.random.default_rng(6).normal(size=(3, 4)).astype(np.float32)


def plain_net(text: str, phase: str = "TRAIN") -> Net:
    return build_net(parse_text(text, caffe_pb2.NetParameter(), "net"), phase, seed=1)


def live_net(text: str, tmp_path: Path, phase: int = caffe.TRAIN) -> caffe.Net:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    return caffe.Net(str(path), phase)


def expected() -> dict[str, np.ndarray]:
    """Gradients of 2 · Σ r², r the right half of x · (1 … 4) + 0.5."""
    weight = np.arange(1, 5, dtype=np.float32)
    top = np.zeros((3, 4), np.float32)
    top[:, 2:] = 4 * (X * weight + 0.5)[:, 2:]
    return {"x": top * weight, "weight": (top * X).sum(0, keepdims=True), "bias": top.sum()}


def test_gradients_of_a_live_net(module: str, tmp_path: Path) -> None:
    net, want = live_net(CHAIN, tmp_path), expected()
    net.blobs["x"].data[...] = X
    for times in (1, 2):
        net.forward()
        net.backward()
        np.testing.assert_allclose(net.blobs["x"].diff, want["x"], rtol=1e-5)
        weight, bias = (blob.diff for blob in net.params["a"])
        np.testing.assert_allclose(weight, times * want["weight"], rtol=1e-5)
        np.testing.assert_allclose(bias, times * want["bias"], rtol=1e-5)
    assert bias.shape == ()
    assert module in type(net.layers[1]).__module__


def test_gradients_of_a_plain_net(module: str) -> None:
    net, want = plain_net(CHAIN), expected()
    x = torch.from_numpy(X)
    net.keeps_diffs = True
    for times in (1, 2):
        net({"x": x})
        net.backward()
        np.testing.assert_allclose(net.diff("x"), want["x"], rtol=1e-5)
        weight, bias = (blob.grad for blob in net.layers["a"].blobs)
        np.testing.assert_allclose(weight, times * want["weight"], rtol=1e-5)
        np.testing.assert_allclose(bias, times * want["bias"], rtol=1e-5)
    assert net.flat.data.tolist() == [1, 2, 3, 4, 0.5]


def test_its_parameters_are_live_and_learn(module: str, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(CHAIN)
    solver_file = tmp_path / "solver.prototxt"
    solver_file.write_text(
        f'net: "{tmp_path / "net.prototxt"}" base_lr: 0.01 lr_policy: "fixed" max_iter: 9'
    )
    solver = caffe.SGDSolver(str(solver_file))
    user, bias = solver.net.layers[1], solver.net.params["a"][1]
    assert user.blobs[1] is bias
    solver.net.blobs["x"].data[...] = X
    solver.step(1)
    np.testing.assert_allclose(bias.data, 0.5 - 0.01 * expected()["bias"], rtol=1e-5)
    user.blobs[0].data[...] = 0
    bias.data[...] = 7
    solver.net.forward()
    np.testing.assert_array_equal(solver.net.blobs["a"].data, np.full((3, 4), 7))


def test_saved_parameters_come_back(module: str, tmp_path: Path) -> None:
    first, second = live_net(CHAIN, tmp_path), live_net(CHAIN, tmp_path)
    first.params["a"][0].data[...] = [[4, 3, 2, 1]]
    first.save(str(tmp_path / "w.caffemodel"))
    second.copy_from(str(tmp_path / "w.caffemodel"))
    np.testing.assert_array_equal(second.layers[1].blobs[0].data, [[4, 3, 2, 1]])


def test_a_data_layer_of_the_users(module: str, tmp_path: Path) -> None:
    text = layer("data", "Counter", 'top: "d"')
    net = live_net(text, tmp_path)
    for number in (1, 2):
        np.testing.assert_array_equal(net.forward()["d"][0], number * np.arange(4))
    assert net.layers[0].passes == 2
    plain = plain_net(text)
    plain({})
    assert plain({})["d"][0].tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_it_knows_its_phase(module: str, tmp_path: Path, phase: int) -> None:
    text = layer("p", "Phase", 'top: "p"')
    assert live_net(text, tmp_path, phase).forward()["p"] == phase
    assert plain_net(text, ("TRAIN", "TEST")[phase])({})["p"] == phase


def test_tops_follow_reshaped_bottoms(module: str, tmp_path: Path) -> None:
    net = live_net(CHAIN, tmp_path)
    net.blobs["x"].reshape(5, 4)
    net.reshape()
    assert net.blobs["r"].shape == (5, 2)
    assert plain_net(CHAIN)({"x": torch.ones(5, 4)})["sum"].shape == ()


def test_a_weighted_top_of_the_users_keeps_its_weight(module: str, tmp_path: Path) -> None:
    text = INPUT + layer("a", "Affine", 'bottom: "x" top: "a"', "loss_weight: 4")
    net = live_net(text, tmp_path)
    net.blobs["x"].reshape(6, 4)
    net.blobs["x"].data[...] = 1
    assert net._forward(0, 1) == 4 * 6 * 10
    np.testing.assert_array_equal(net.blobs["a"].diff, np.full((6, 4), 4))


def test_what_the_users_code_raises_comes_out(module: str, tmp_path: Path) -> None:
    text = layer("f", "Failing", 'top: "f"')
    broken = text.replace('"Failing"', '"Failing" param_str: "setup"')
    with pytest.raises(RuntimeError, match=r"^no good in setup$"):
        live_net(broken, tmp_path)
    with pytest.raises(KeyError, match="no good in forward"):
        live_net(text, tmp_path).forward()
    with pytest.raises(
        PrototxtError, match=r'"f" \(Python\): .*Failing raised RuntimeError: no good'
    ):
        plain_net(broken)
    with pytest.raises(
        PrototxtError, match=r'"f" \(Python\): .*raised KeyError: .no good in forward'
    ):
        plain_net(text)({})


def test_a_layer_that_exits_does_not_end_the_program_in_silence(module: str) -> None:
    text = layer("f", "Failing", 'top: "f"').replace('"Failing"', '"Failing" param_str: "exit"')
    with pytest.raises(PrototxtError, match=r'"f" \(Python\): .*Failing raised SystemExit: 0'):
        plain_net(text)


@pytest.mark.parametrize("kind", ["Stranger", "Missing"])
def test_other_classes_are_refused(module: str, kind: str) -> None:
    with pytest.raises(PrototxtError, match=f'must have a class "{kind}" derived from caffe.Layer'):
        plain_net(layer("s", kind, 'top: "s"'))


def test_a_module_that_nobody_allowed_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "never_allowed.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = layer("e", "Evil", 'top: "e"').replace("layers_under_test", "never_allowed")
    with pytest.raises(PrototxtError, match=r"--allow-python-layer never_allowed, or allow_python"):
        plain_net(text)
    assert "never_allowed" not in sys.modules


def test_a_module_that_is_not_there_is_named() -> None:
    caffe.allow_python_layers("module_of_nobody")
    text = layer("n", "N", 'top: "n"').replace("layers_under_test", "module_of_nobody")
    with pytest.raises(PrototxtError, match='cannot import the module "module_of_nobody"'):
        plain_net(text)


OUTSIDE = """
import sys
from prototxt_parser import PrototxtError, build_net, read_net
from prototxt_parser.layers.python import allow_python_layers
import layers_of_a_stranger
definition = read_net("net.prototxt")
try:
    build_net(definition, "TRAIN")
except PrototxtError as error:
    print("refused" if "allow_python_layers" in str(error) else error)
"""


def test_outside_of_pycaffe_even_loaded_modules_need_permission(tmp_path: Path) -> None:
    (tmp_path / "layers_of_a_stranger.py").write_text("")
    text = layer("s", "S", 'top: "s"').replace("layers_under_test", "layers_of_a_stranger")
    (tmp_path / "net.prototxt").write_text(text)
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}){OUTSIDE}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.stdout == "refused\n", result.stderr
